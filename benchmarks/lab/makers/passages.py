"""A text for encoders that search: passages of the Wikipedia demo corpus, of about so many words each.

A passage ends with a sentence, within one paragraph; what is shorter than half of a passage is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....compress.text.corpus import paragraphs
from ....files.storage import write_atomic

if TYPE_CHECKING:
    from ..study.sources import Sources

PICO: dict[str, Any] = {"words": 12}


def make(target: Path, sources: Sources, *, words: int, text: str = "wikipedia") -> None:
    """Write every passage of ``words`` words, or a sentence more, a paragraph each."""
    found = [
        passage
        for document in sources.documents(text)
        for paragraph in paragraphs(document)
        for passage in passages(paragraph, words)
    ]
    write_atomic(target, ("\n\n".join(dict.fromkeys(found)) + "\n").encode())


def passages(paragraph: str, words: int) -> Iterator[str]:
    """The passages of a ``paragraph``."""
    held: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
        held += sentence.split()
        if len(held) >= words:
            yield " ".join(held)
            held = []
    if 2 * len(held) >= words:
        yield " ".join(held)
