"""Texts that a verb is given in a file or on its input: one a line, whatever they hold."""

import io
import sys
from pathlib import Path

import pytest
from edgepress.cli.bundle_options import given_texts, text_lines
from edgepress.errors import InputError

TEXTS = ["one\u2028line", "another\x85of two\x0cpages", " indented"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("piped", [False, True])
def test_a_text_is_a_line_with_whatever_else_separates_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, piped: bool
) -> None:
    written = (end.join([TEXTS[0], "", *TEXTS[1:], "  "]) + end).encode()
    file = tmp_path / "texts.txt"
    file.write_bytes(written)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written)))
    assert text_lines(Path("-") if piped else file) == TEXTS
    assert given_texts(("first",), file, "encode") == ["first", *TEXTS]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="cannot read texts from") as caught:
        text_lines(tmp_path / "texts.txt")
    assert "utf-8" in caught.value.why
    with pytest.raises(InputError, match="nothing to encode"):
        given_texts((), None, "encode")
