"""The user's own groups: rows of the ``.jsonl`` text that have a ``group``, for decoders, encoders and
classifiers.
"""

from typing import Final

from ..subgroups.items import Kind

title = "group"
kinds: frozenset[Kind] = frozenset({"decoder", "encoder", "classifier"})
of: Final = "rows"
tested = True
