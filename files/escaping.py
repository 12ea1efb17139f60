"""Text that came from a file, made fit for where a person reads it: a terminal, or a Markdown page.

Names of models, tensors and files are strangers' text. A terminal obeys what is in it (colours, titles, a
cursor that moves up), a right-to-left override shows another order than the one that is there, and Markdown
knows links and HTML.
"""

import re

LINE_LIMIT = 4000
# Categories of Unicode whose characters act instead of showing: control, format, surrogate, line, paragraph.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What has no meaning in Markdown; dots, colons and slashes only where they make no address.
_PLAIN = re.compile(r"(?!.*(?:://|www\.))[\w .,:;/()='%+±×–…-]*", re.IGNORECASE)


def printable(text: str) -> str:
    """``text`` with every character that would act written as ``\\x1b`` or ``\\u202e``; a line of more than
    4,000 characters is cut. Line breaks and tabs stay.
    """
    return "\n".join(_line(line) for line in text.split("\n"))


def one_line(text: str) -> str:
    """:func:`printable` for what is no more than a line: its line breaks are written as ``\\n`` too."""
    return _line(text.replace("\n", "\\n"))


def markdown(text: str) -> str:
    """``text`` as a word of a Markdown page: a code span where it could be anything but text."""
    line = one_line(text)
    if _PLAIN.fullmatch(line):
        return line
    return f"`{line.replace('`', _escaped('`')).replace('|', _escaped('|'))}`"


def without_controls(text: str) -> str:
    """``text`` for a terminal, with control characters written out; line breaks, tabs and scripts stay."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _category(one) == "Cc" and one not in "\n\t" else one for one in text)


def _line(line: str) -> str:
    if len(line) > LINE_LIMIT:
        line = f"{line[:LINE_LIMIT]} … ({len(line):,} characters)"
    if line.isprintable():
        return line
    return "".join(_escaped(one) if _category(one) in _ACTING and one != "\t" else one for one in line)


def _category(character: str) -> str:
    import unicodedata  # here alone: nearly all text is printable

    return unicodedata.category(character)


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
