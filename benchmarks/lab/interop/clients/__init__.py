"""One client a file, run in an environment of its own, where edgepress is not installed.

``PACKAGES`` are what pip installs there, ``ARTIFACTS`` are what it opens, of models of the ``KINDS``.
``answers(artifact, task)`` returns ``tokens`` of a decoder (the greedy ones after each row) and ``values``:
logits at the last token of each row, or the sentence vectors of an encoder. What it raises is a refusal.
"""
