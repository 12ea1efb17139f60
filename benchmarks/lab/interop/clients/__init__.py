"""One client a file, run in an environment of its own, where edgepress is not installed.

``PACKAGES`` are what pip installs there, ``WITHOUT`` what it takes away again, ``NPM`` what npm installs;
``ARTIFACTS`` are what it opens, of models of the ``KINDS``, or of those ``FAMILIES`` alone that it names.
``answers(artifact, task)`` returns ``tokens`` of what writes (the greedy ones after each row) and ``values``:
logits at the last token of each row, or the vectors of an encoder; of a client with ``ASKED`` what our
answers under that name are. What it raises is a refusal; with ``FAILS_FOR_GOOD`` its process ends then.
"""
