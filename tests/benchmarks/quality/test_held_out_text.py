"""What is measured: spread windows reach the end of the text, first ones start it, and both come whole."""

from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.quality.held_out_text import measured_sentences, measured_windows
from edgepress.errors import InputError, UnknownName
from edgepress.runtime.text.tokenizer import Tokenizer
from hypothesis import given
from hypothesis import strategies as st


def test_first_windows_are_the_start_of_the_text(pico_llama: Path, pico_text: Path) -> None:
    tokenizer, text = Tokenizer.open(pico_llama), pico_text.read_text(encoding="utf-8")
    found = measured_windows(tokenizer, [text], count=3, length=20, placement="first")
    np.testing.assert_array_equal(found.ravel(), tokenizer.encode(text, special=False)[:60])


def test_spread_windows_reach_from_start_to_end(pico_llama: Path, pico_text: Path) -> None:
    tokenizer, text = Tokenizer.open(pico_llama), pico_text.read_text(encoding="utf-8")
    ids = tokenizer.encode(text, special=False)
    found = measured_windows(tokenizer, [text], count=4, length=16, placement="spread")
    np.testing.assert_array_equal(found[0], ids[:16])
    last = len(ids) // 16 - 1
    np.testing.assert_array_equal(found[-1], ids[16 * last : 16 * last + 16])
    assert len(np.unique(found, axis=0)) == 4


def test_too_little_text_and_bad_sizes(pico_llama: Path) -> None:
    tokenizer = Tokenizer.open(pico_llama)
    with pytest.raises(InputError, match=r"(?s)9 windows of 8 need 72.*--windows"):
        measured_windows(tokenizer, ["the river ran under old stone"], count=9, length=8, placement="spread")
    for count, length in ((0, 8), (2, 1)):
        with pytest.raises(InputError, match="at least 1 window"):
            measured_windows(tokenizer, ["x"], count=count, length=length, placement="spread")
    with pytest.raises(UnknownName, match="spread"):
        measured_windows(tokenizer, ["the river ran"], count=1, length=2, placement="sprad")  # type: ignore[arg-type]


@pytest.mark.chain
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), st.integers(1, 15))
def test_sentences_are_distinct_and_in_order(texts: list[str], count: int) -> None:
    distinct = list(dict.fromkeys(texts))
    for placement in ("spread", "first"):
        found = measured_sentences(texts, count=count, placement=placement)  # type: ignore[arg-type]
        assert len(found) == len(set(found)) == min(count, len(distinct))
        assert found == sorted(found, key=distinct.index)


def test_paragraphs_of_a_document_are_sentences_apart() -> None:
    assert measured_sentences(["one\n\ntwo", "three"], count=9, placement="first") == ["one", "two", "three"]
    with pytest.raises(InputError, match="at least 1 sentence"):
        measured_sentences(["one"], count=0, placement="first")
