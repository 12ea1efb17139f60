"""Ways to cut text into words, and llama.cpp's names for them."""

from typing import Any

import pytest
from edgepress.compress.model.checkpoint.gguf_words import INEXACT, WAYS, inexact_name_of, name_of

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PLAIN = {**BYTES, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sequence(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def test_how_text_is_cut_has_llama_cpp_s_name() -> None:
    llama = split(QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))
    assert name_of(BYTES, False) == "gpt-2"
    assert name_of(sequence(DIGITS, BYTES), False) == "smollm"
    assert name_of(sequence(split(QWEN), PLAIN), False) == "qwen2"
    assert [name_of(sequence(llama, PLAIN), whole) for whole in (False, True)] == ["dbrx", "llama-bpe"]


@pytest.mark.parametrize(
    "steps",
    [
        {**BYTES, "add_prefix_space": True},
        PLAIN,
        sequence(split("another"), PLAIN),
        sequence(split(QWEN), BYTES),
        sequence(),
        sequence("text"),
        {"type": "Sequence"},
        None,
        "ByteLevel",
    ],
)
def test_another_way_to_cut_text_has_no_name(steps: Any) -> None:
    assert name_of(steps, False) is None


def test_ways_that_llama_cpp_comes_close_to_are_named_as_such() -> None:
    for name, way in INEXACT.items():
        assert (name_of(way, False), inexact_name_of(way)) == (None, name)
    assert inexact_name_of(BYTES) is None


def test_every_way_has_its_name_or_that_of_an_equal_one() -> None:
    names = {way: name_of(step, way == "llama-bpe") for way, step in WAYS.items()}
    assert all(name is not None and WAYS[name] == WAYS[way] for way, name in names.items())
