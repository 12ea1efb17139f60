"""Slices, a file each: text in named groups, to see whom a compression harms; the file name is the slice's.

A slice says with ``title`` what its groups are, with ``kinds`` which models it can be asked of (decoder,
encoder, classifier), with ``of`` what it has, and with ``tested`` whether a group that is harmed more than
the others is an alarm; it has one function by ``of``:

- ``texts``: ``texts(seed)`` gives :class:`~edgepress.benchmarks.quality.subgroups.items.GroupText`; harm is
  how far the model is from its original on them;
- ``choices``: ``choices(seed)`` gives :class:`~edgepress.benchmarks.quality.subgroups.items.Choice`: pairs of
  sentences; harm is how often another one becomes the likelier;
- ``rows``: no function; the rows of the user's text that have a ``group``;
- ``associations``: ``associations()`` gives
  :class:`~edgepress.benchmarks.quality.subgroups.items.Association`; harm is how much stronger one became;
- ``tokens``: ``bands(tokens, tokenizer)`` names the group of every token of a window of the measured text.

A slice whose groups ``compress --protect`` may spare has ``calibration()``, texts of the same groups that
are never measured.
"""
