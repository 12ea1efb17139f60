"""Demo data of the ``gensim`` package, which is found and never imported (that would pull in scipy): English
Wikipedia articles, and word pairs with human similarity ratings, against which embeddings are ranked.

About a hundred articles come from a MediaWiki dump (text under CC BY-SA by Wikipedia's authors) and are split
by article: no sentence of a held-out article is ever calibrated with. WordSim-353 (Finkelstein et al.,
"Placing Search in Context", 2001) rates relatedness; SimLex-999 (Hill, Reichart and Korhonen,
arXiv:1408.3456, 2014) rates similarity proper. Both are on a scale from 0 to 10.
"""

import bz2
import html
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal
from xml.etree import ElementTree

from ...errors import InputError, MissingDependency, UnknownName

INSTALL = "pip install --no-deps gensim==4.4.0"


def data_file(name: str) -> Path:
    """The path of the data file ``name``."""
    spec = find_spec("gensim")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            f"the demo data {name!r} comes with the package 'gensim', which is not installed",
            fix=f"install it with: {INSTALL}",
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "test" / "test_data" / name
    if not path.is_file():
        raise MissingDependency(
            f"the installed 'gensim' does not carry {name!r}",
            why=f"{path} is missing",
            fix=f"install the version that does with: {INSTALL}",
        )
    return path


DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
HELD_OUT_EVERY = 3

Split = Literal["calibration", "held-out"]


def articles(split: Split) -> list[str]:
    """The articles of a split, in the order of the dump; paragraphs are separated by a blank line.

    Every third article is held out. Takes about two seconds at first, nothing after that.
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
    """``(title, text)`` of every article in a MediaWiki XML dump, without redirects and those without
    prose.
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


PAIR_FILES = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}


def pairs(name: str) -> list[tuple[str, str, float]]:
    """``(word, word, rating)`` of the set ``wordsim353`` or ``simlex999``."""
    if name not in PAIR_FILES:
        raise UnknownName("word pair set", name, PAIR_FILES)
    path = data_file(PAIR_FILES[name])
    rated: list[tuple[str, str, float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            left, right, rating = line.split("\t")
            rated.append((left, right, float(rating)))
        except ValueError:
            raise InputError(f"{path}:{number} is not two words and a rating: {line!r}") from None
    return rated


MIN_PARAGRAPH = 120
"""Shorter lines are captions, list entries and remains of tables rather than prose."""

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SELF_CLOSED = re.compile(r"<(?:ref|references|br|hr)\b[^<>]*/>", re.IGNORECASE)
_DROPPED_ELEMENT = re.compile(
    r"<(ref|math|gallery|timeline|source|syntaxhighlight|score|imagemap|table|code|pre|chem|hiero)\b[^<>]*>.*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:)?//[^\s\]]*\s*([^\]]*)\]")
_NAMESPACE = re.compile(r"\s*:?(?:file|image|category|media|[a-z]{2,3}|simple)\s*:", re.IGNORECASE)
_REMAINS = re.compile(r"^[|!{}=]|\[\[|\]\]|\{\{|\}\}")
_QUOTES = re.compile(r"'{2,}")
_HOLLOW_BRACKETS = re.compile(r"\s*\((?:[\s,;:/–-]|or|and)*\)")
_BRACKET_EDGE = re.compile(r"\((?:\s*[,;:])*\s+")
_SPACE = re.compile(r"[ \t\u00a0\u2009\u202f]+")
_SPACE_BEFORE_STOP = re.compile(r" +([,.;:)])")
_BACK_MATTER = re.compile(
    r"^==\s*(?:see also|references|notes|further reading|external links|bibliography|sources|footnotes"
    r"|citations|notes and references|references and notes|works cited)\s*==\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def paragraphs(markup: str) -> list[str]:
    """The prose paragraphs of an article in order, each at least :data:`MIN_PARAGRAPH` characters long."""
    found = []
    for line in plain_text(markup).splitlines():
        text = _tidy(line)
        if len(text) >= MIN_PARAGRAPH and not _REMAINS.search(text):
            found.append(text)
    return found


def plain_text(markup: str) -> str:
    """The text by line, without templates, references, tables, link targets, tags and back matter."""
    text = _COMMENT.sub("", markup)
    text = _SELF_CLOSED.sub("", text)
    text = _DROPPED_ELEMENT.sub("", text)
    text = _from_inside_out(_TEMPLATE, _template, text)
    text = _from_inside_out(_TABLE, lambda _: "", text)
    text = _from_inside_out(_LINK, _link, text)
    text = _EXTERNAL.sub(r"\1", text)
    text = _TAG.sub("", text)
    if back := _BACK_MATTER.search(text):
        text = text[: back.start()]
    return html.unescape(_QUOTES.sub("", text))


def _from_inside_out(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    count = 1
    while count:
        text, count = pattern.subn(replace, text)
    return text


def _template(match: re.Match[str]) -> str:
    name, *arguments = (part.strip() for part in match[1].split("|"))
    plain = [argument for argument in arguments if "=" not in argument]
    kind = name.lower()
    if kind in ("convert", "cvt") and len(plain) >= 2:
        return f"{plain[0]} {plain[1]}"
    if kind in ("nowrap", "nobr", "em", "strong", "smallcaps", "abbr") and plain:
        return plain[0]
    if (kind == "lang" or kind.startswith("lang-")) and plain:
        return plain[-1]
    return ""


def _link(match: re.Match[str]) -> str:
    if _NAMESPACE.match(match[1]):
        return ""
    return match[1].rpartition("|")[2]


def _tidy(line: str) -> str:
    text = line.strip().lstrip("*#:;").strip()
    text = _HOLLOW_BRACKETS.sub("", text)
    text = _BRACKET_EDGE.sub("(", text)
    text = _SPACE.sub(" ", text)
    return _SPACE_BEFORE_STOP.sub(r"\1", text).strip()
