"""A text for sentence encoders: sentences of the Wikipedia demo corpus and single words, a paragraph each.

Embeddings are used for both. No word pair and no rating is in it but by chance, as words.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....files.storage import write_atomic

if TYPE_CHECKING:
    from ..study.sources import Sources

PICO: dict[str, Any] = {"sentences": 40, "words": 10}


def make(target: Path, sources: Sources, *, sentences: int, words: int, text: str = "wikipedia") -> None:
    """Write at most so many ``sentences`` and ``words``, drawn with a fixed seed."""
    whole = " ".join(" ".join(sources.documents(text)).split())
    found = sorted({part.strip() for part in re.split(r"(?<=[.!?])\s+", whole) if 30 < len(part) < 240})
    single = sorted(set(re.findall(r"\b[a-z]{3,12}\b", whole)))
    draw = random.Random(0)
    parts = draw.sample(found, min(sentences, len(found))) if found else [whole]
    parts += draw.sample(single, min(words, len(single)))
    write_atomic(target, ("\n\n".join(parts) + "\n").encode())
