"""Streaming text: whole characters only, and stop strings cut at the same place whatever the pieces."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from edgepress.errors import InputError
from edgepress.runtime.text.text_stream import IncrementalDecoder, StopStrings
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.runtime.text.tokenizer_worker import LibraryTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

pytestmark = pytest.mark.chain


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    decoder = IncrementalDecoder(tokenizer)
    return [decoder.feed(token) for token in ids]


@pytest.fixture(scope="module")
def bpe(decoder_bundle: Path) -> Tokenizer:
    return Tokenizer.open(decoder_bundle)


@pytest.fixture(scope="module")
def byte_fallback() -> Tokenizer:
    """A Llama-like tokenizer: ``▁`` for spaces, unknown characters as bytes, a leading space to strip."""
    vocabulary = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    vocabulary += [
        (piece, -float(rank))
        for rank, piece in enumerate(["▁", "▁the", "▁river", "a", "b", "c", "d", "e", "n", "t", "▁a", "é"])
    ]
    backend = Backend(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(LibraryTokenizer(backend), Path("/nonexistent"))


@given(text=st.text(max_size=30) | st.sampled_from(["naïve 🙂🚀", "数を数える", "👩‍👩‍👧 €12", "a\u0301"]))
def test_pieces_join_to_the_text(bpe: Tokenizer, text: str) -> None:
    ids = bpe.encode(text)
    pieces = _pieces(bpe, ids)
    assert "".join(pieces) == bpe.decode(ids) == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


PIECES = list(range(257, 269))
spelled = st.characters(codec="utf-8", exclude_characters="\ufffd").map(lambda c: [1 + b for b in c.encode()])


@given(parts=st.lists(st.sampled_from(PIECES).map(lambda token: [token]) | spelled, max_size=20))
def test_pieces_and_spelled_bytes_mixed(byte_fallback: Tokenizer, parts: list[list[int]]) -> None:
    ids = [token for part in parts for token in part]
    pieces = _pieces(byte_fallback, ids)
    assert "".join(pieces) == byte_fallback.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_comes_once_it_is_whole(bpe: Tokenizer) -> None:
    ids = bpe.encode("ᚠ")
    assert len(ids) == 3
    assert _pieces(bpe, ids) == ["", "", "ᚠ"]
    assert _pieces(bpe, ids[:2]) == ["", ""]


def test_special_tokens_are_silent(bpe: Tokenizer) -> None:
    ids = [1, *bpe.encode("stone"), 2, 2, *bpe.encode(" coins")]
    assert "".join(_pieces(bpe, ids)) == "stone coins"


SILENT, STRAY = 256, 0x80


class _Bytes:
    """A byte-level tokenizer whose token 256 has no text; counts the tokens that it decodes."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return bytes(token for token in ids if token != SILENT).decode("utf-8", "replace")


ENDLESS = {"no text": [SILENT], "stray bytes": [STRAY], "written out": list("\ufffd".encode())}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_token_of_what_never_completes_costs_no_more_for_those_before(kind: str) -> None:
    tokenizer = _Bytes()
    decoder = IncrementalDecoder(tokenizer)
    for token in ENDLESS[kind] * 1000:
        before = tokenizer.decoded
        decoder.feed(token)
        assert tokenizer.decoded - before <= 300


characters = st.sampled_from("a é€🙂\ufffd").map(lambda character: list(character.encode()))
runs = st.sampled_from([SILENT, STRAY]).flatmap(
    lambda token: st.integers(1, 80).map(lambda count: [token] * count)
)


@given(parts=st.lists(runs | characters, max_size=12))
def test_what_never_completes_changes_nothing_around_it(parts: list[list[int]]) -> None:
    ids = [token for part in parts for token in part]
    decoder, text = IncrementalDecoder(_Bytes()), _Bytes().decode(ids)
    shown = "".join(map(decoder.feed, ids))
    assert text.startswith(shown) and not text[len(shown) :].strip("\ufffd")


@pytest.mark.parametrize("later", [[STRAY], list("é".encode()), [97]])
def test_a_character_with_tokens_without_text_around_it_is_not_cut(later: list[int]) -> None:
    """A replacement character that was written out, which looks like one that is not complete."""
    for count in range(25, 36):
        ids = [*[SILENT] * count, *"\ufffd".encode(), *[SILENT] * 31, *later, 97]
        assert "".join(map(IncrementalDecoder(_Bytes()).feed, ids)) == _Bytes().decode(ids)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InputError, match='a stop string is ""') as caught:
        StopStrings(["end", ""])
    assert "leave it out" in caught.value.fix


def _reference_cut(text: str, stops: Sequence[str]) -> str:
    """Read character by character until some stop string has just been completed."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@settings(max_examples=400)
@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_equal_the_reference(pieces: list[str], stops: list[str]) -> None:
    watch = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += watch.feed(piece)
        if watch.stopped:
            break
    shown += watch.flush()
    text = "".join(pieces)
    assert shown == _reference_cut(text, stops)
    assert watch.stopped == (shown != text)


def test_text_is_held_back_no_longer_than_needed() -> None:
    watch = StopStrings(["\n\nUser:"])
    assert [watch.feed(piece) for piece in ("Hello", "\n", "\nUs", "eless")] == [
        "Hello",
        "",
        "",
        "\n\nUseless",
    ]
    assert not watch.stopped
