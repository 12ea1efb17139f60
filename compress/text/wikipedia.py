"""About a hundred English Wikipedia articles, split into text to calibrate with and text to measure on.

They come from a MediaWiki dump inside the ``gensim`` package (text under CC BY-SA by Wikipedia's authors),
read with the standard library. The split is by article: no sentence of a held-out article is ever calibrated
with.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal
from xml.etree import ElementTree

from ...errors import InputError
from .gensim_package import data_file
from .wiki_markup import paragraphs

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
HELD_OUT_EVERY = 3

Split = Literal["calibration", "held-out"]


def articles(split: Split) -> list[str]:
    """The articles of a split, in the order of the dump; paragraphs are separated by a blank line.

    Every third article is held out. Takes about two seconds at first, nothing after that.

    Raises:
        MissingDependency: the package that carries the dump is not installed.
        InputError: the dump does not parse.
    """
    held_out = split == "held-out"
    return [
        text
        for index, (_, text) in enumerate(_all_articles(data_file(DUMP)))
        if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    ]


@lru_cache(maxsize=1)
def _all_articles(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        with bz2.open(path, "rb") as stream:
            return tuple(read_dump(stream))
    except (ElementTree.ParseError, OSError, EOFError) as error:
        raise InputError(f"cannot read the Wikipedia dump {path}", why=str(error)) from None


def read_dump(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """``(title, text)`` of every article in a MediaWiki XML dump, without redirects and those without prose.

    Raises:
        xml.etree.ElementTree.ParseError: the stream is not well-formed XML.
    """
    for _, element in ElementTree.iterparse(stream):
        if element.tag.rpartition("}")[2] != "page":
            continue
        fields = {child.tag.rpartition("}")[2]: child for child in element.iter()}
        is_article = _text(fields, "ns") == "0" and "redirect" not in fields
        prose = paragraphs(_text(fields, "text")) if is_article else []
        if prose:
            yield _text(fields, "title"), "\n\n".join(prose)
        element.clear()


def _text(fields: dict[str, ElementTree.Element], name: str) -> str:
    element = fields.get(name)
    return (element.text or "") if element is not None else ""
