"""Tokenizers from strangers: small files that ask for gigabytes or never end, refused; odd ones just work."""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import BundleError, RefusedByPolicy
from edgepress.runtime.text import tokenizer_process
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.runtime.text.tokenizer_process import TokenizerProcess
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

pytestmark = pytest.mark.chain

DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
EIGHT_GB = {"type": "Sequence", "normalizers": [DOUBLED] * 33}
NESTED = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "a", "type_id": 0}}] * 20_000
    + [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"a": {"id": "a", "ids": [0] * 20_000, "tokens": ["a"] * 20_000}},
}
DECODER = {"type": "Sequence", "decoders": [DOUBLED] * 33}
NORMALIZED = {
    "id": 9,
    "content": "aaaa",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": True,
    "special": False,
}


def _document(**parts: Any) -> str:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "x" * 2000: 2}, "merges": []}
    empty = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    rest = {"pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}
    return json.dumps(empty | rest | parts)


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_process, "SECONDS", 3.0)
    monkeypatch.setattr(tokenizer_process, "MEMORY_LIMIT", 400 << 20)


def _open(folder: Path, text: str) -> Tokenizer:
    (folder / "tokenizer.json").write_text(text)
    return Tokenizer.open(folder)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        pytest.param({"normalizer": EIGHT_GB}, "a", id="replacements"),
        pytest.param({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}}, "é", id="bytes"),
        pytest.param({"post_processor": TEMPLATE}, "a", id="template"),
        pytest.param({"pre_tokenizer": NESTED}, ("a" * 18 + "b") * 2_000, id="pattern"),
    ],
)
def test_a_text_that_grows_or_never_ends_is_refused(tmp_path: Path, parts: dict[str, Any], text: str) -> None:
    tokenizer = _open(tmp_path, _document(**parts))
    assert (tmp_path / "tokenizer.json").stat().st_size < 2 << 20
    with pytest.raises(RefusedByPolicy, match="was stopped"):
        tokenizer.encode(text)
    assert tokenizer.decode([1]) == "b"


def test_a_file_that_grows_as_it_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedByPolicy, match="was stopped"):
        _open(tmp_path, _document(normalizer=EIGHT_GB, added_tokens=[NORMALIZED]))


def test_a_part_hidden_behind_the_model_does_not_run_here(tmp_path: Path) -> None:
    text = _document()[:-1] + ', "norm\\u0061lizer": ' + json.dumps(EIGHT_GB) + "}"
    with pytest.raises(RefusedByPolicy, match="was stopped"):
        _open(tmp_path, text).encode("a")


def test_a_decoder_that_multiplies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedByPolicy, match="was stopped"):
        _open(tmp_path, _document(decoder=DECODER)).decode([0])


def test_a_token_of_thousands_of_characters_is_not_written(tmp_path: Path) -> None:
    tokenizer = _open(tmp_path, _document())
    assert tokenizer.decode([0, 1]) == "a b"
    with pytest.raises(BundleError, match="more than 1024 characters"):
        tokenizer.decode([2])


def test_padding_to_two_billion_is_off(tmp_path: Path) -> None:
    padding = {
        "strategy": {"Fixed": 2**31},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    assert _open(tmp_path, _document(padding=padding)).encode("ab") == [0, 1]


def test_a_panic_is_the_bundle_s_fault(tmp_path: Path) -> None:
    tokenizer = _open(tmp_path, _document(pre_tokenizer=NESTED))
    with pytest.raises(BundleError, match="PanicException"):
        tokenizer.encode("a" * 40 + "b")
    assert tokenizer.encode("ab") == [0, 1]


@pytest.fixture
def unigram() -> Backend:
    """As T5's: pieces with scores, spaces as ``▁``, a pattern in the normalizer."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in "abcdefghinorstv"), ("▁the", -2.0)]
    backend = Backend(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


def test_an_odd_tokenizer_gives_the_library_s_ids(
    tmp_path: Path, unigram: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_process, "_BATCH", 50)
    tokenizer = _open(tmp_path, unigram.to_str())
    assert isinstance(tokenizer._backend, TokenizerProcess)
    texts = ["the river", "", "on the other side of the town " * 9, "ﬁsh 数"]
    ids = tokenizer.encode_batch(texts)
    assert ids == [unigram.encode(text).ids for text in texts]
    assert tokenizer.decode(ids[2]) == unigram.decode(ids[2])
    assert tokenizer.encode(texts[2], max_length=5) == ids[2][:5]
    pairs = [(texts[0], text) for text in texts]
    found = tokenizer.encode_pairs(pairs)
    assert [one[0] for one in found] == [unigram.encode(*pair).ids for pair in pairs]
    assert tokenizer.vocab_size == unigram.get_vocab_size()
    assert tokenizer.tokens == set(unigram.get_vocab())
