"""MediaWiki markup to plain prose: what is left is running text, one paragraph per element.

The markup is recursive, so each construct is removed from the inside out until none is left: templates,
tables, links. Not a renderer: a template that would print text is kept only where its argument is the text,
as in ``{{convert|5|km}}``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

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
