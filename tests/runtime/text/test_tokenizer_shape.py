"""The tokenizers of published families run in this process; what has no bound does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.runtime.text.tokenizer_shape import is_known_model, known_parts
from edgepress.runtime.text.tokenizer_worker import LibraryTokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.normalizers import Prepend, Replace
from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Split

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = GPT4O.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)


def _split(*patterns: str) -> Any:
    found = [Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*found, ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_level(pre: Any, normalizer: Any = None) -> Backend:
    """GPT-2's kind: bytes as letters."""
    backend = Backend(models.BPE({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<s>": 4}, [("a", "b")]))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, pre, decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _pieces(normalizer: Any, pre: Any = None) -> Backend:
    """Llama 2's kind: ``▁`` for spaces, bytes for what it does not know."""
    vocabulary = {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "▁a": 4, "<0x0A>": 5}
    backend = Backend(
        models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer, backend.pre_tokenizer = normalizer, pre
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return backend


def _words() -> Backend:
    """BERT's kind."""
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer, backend.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 1), ("[SEP]", 2)]
    )
    return backend


def _roberta() -> Backend:
    backend = _byte_level(ByteLevel(add_prefix_space=False))
    backend.post_processor = processors.RobertaProcessing(("<s>", 4), ("<s>", 4))
    return backend


FAMILIES: dict[str, Callable[[], Backend]] = {
    "GPT-2, OPT": lambda: _byte_level(ByteLevel(add_prefix_space=False)),
    "RoBERTa": _roberta,
    "GPT-NeoX, OLMo": lambda: _byte_level(ByteLevel(add_prefix_space=False), normalizers.NFC()),
    "SmolLM2, StarCoder": lambda: _byte_level(pre_tokenizers.Sequence([Digits(True), ByteLevel(False)])),
    "Falcon": lambda: _byte_level(
        pre_tokenizers.Sequence(
            [
                Punctuation("contiguous"),
                ByteLevel(False),
                Digits(),
                Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        )
    ),
    "Phi-2": lambda: _byte_level(_split(GPT2)),
    "Llama 3, Phi-4": lambda: _byte_level(_split(LLAMA3)),
    "Qwen": lambda: _byte_level(_split(LLAMA3.replace("{1,3}", "")), normalizers.NFC()),
    "gpt-oss, Llama 4": lambda: _byte_level(_split(GPT4O)),
    "Mistral, tekken": lambda: _byte_level(_split(TEKKEN)),
    "DeepSeek": lambda: _byte_level(_split(*DEEPSEEK), normalizers.Sequence([])),
    "Llama 2, Mistral, Phi-3": lambda: _pieces(normalizers.Sequence([Prepend("▁"), Replace(" ", "▁")])),
    "Llama 2, new": lambda: _pieces(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "Gemma": lambda: _pieces(Replace(" ", "▁"), Split(" ", "merged_with_previous")),
    "BERT, MiniLM": _words,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_published_families_run_here_and_are_the_library_s(name: str) -> None:
    theirs = FAMILIES[name]()
    theirs.add_special_tokens([AddedToken("<|a|>"), AddedToken("<|b|>", lstrip=True)])
    theirs.add_tokens(["new", AddedToken("more", normalized=False, single_word=True)])
    theirs.add_special_tokens(["<|c|>"])
    theirs.enable_truncation(8)
    parts = known_parts(theirs.to_str(pretty=True).encode())
    assert parts is not None
    ours = LibraryTokenizer.assemble(*parts)
    assert is_known_model(ours.model)
    theirs.no_truncation()
    assert json.loads(ours._backend.to_str()) == json.loads(theirs.to_str())
    for text in ("ab a new moremore <|b|> naïve 数 12345\n", ""):
        assert ours.encode([text], True, None) == [theirs.encode(text).ids]


UNBOUNDED: dict[str, Any] = {
    "a pattern that nobody published": {"pre_tokenizer": _split("(a+)+$")},
    "replacements in a row": {"normalizer": normalizers.Sequence([Replace("a", "aa")] * 5)},
    "one long replacement": {"normalizer": Replace("a", "b" * 40)},
    "a replacement of nothing": {"normalizer": Replace("", "b")},
    "a long prefix": {"normalizer": Prepend("x" * 40)},
    "bytes as letters again and again": {"pre_tokenizer": pre_tokenizers.Sequence([ByteLevel(False)] * 3)},
    "a part without a known cost": {"decoder": decoders.CTC()},
    "a decoder that multiplies": {"decoder": decoders.Replace("a", "b" * 40)},
    "the text twice": {
        "post_processor": processors.TemplateProcessing("$A $A", "$A $B", []),
    },
    "a template of many ids": {
        "post_processor": processors.TemplateProcessing(
            "s $A", "$A $B", [{"id": "s", "ids": [4] * 99, "tokens": ["<s>"] * 99}]
        ),
    },
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_has_no_bound_does_not_run_here(name: str) -> None:
    backend = _byte_level(ByteLevel(add_prefix_space=False))
    for part, value in UNBOUNDED[name].items():
        setattr(backend, part, value)
    assert known_parts(backend.to_str().encode()) is None


def test_an_unknown_flag_of_a_token_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    theirs = _words()
    theirs.add_tokens(["new"])
    content = theirs.to_str().replace('"lstrip":', '"never\\u001b[2J": 1, "lstrip":')
    parts = known_parts(content.encode())
    assert parts is not None
    assert LibraryTokenizer.assemble(*parts).id_of("new") == 5
    assert capfd.readouterr() == ("", "")


def test_a_long_added_token_does_not_run_here() -> None:
    backend = _words()
    backend.add_tokens(["x" * 20_000])  # tokenizers 0.22 takes minutes for a million
    assert known_parts(backend.to_str().encode()) is None


@pytest.mark.parametrize(
    "model",
    [
        models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=100_000),
        models.BPE({"a": 0}, [], continuing_subword_prefix="x" * 100),
        models.BPE({"a": 0}, [], end_of_word_suffix="x" * 100),
    ],
)
def test_a_model_whose_words_have_no_end_does_not_run_here(model: Any) -> None:
    parts = known_parts(Backend(model).to_str().encode())
    assert parts is not None and not is_known_model(LibraryTokenizer.assemble(*parts).model)


def test_a_model_of_another_kind_does_not_run_here() -> None:
    assert known_parts(Backend(models.Unigram([("a", 0.0)], 0, False)).to_str().encode()) is None


@pytest.mark.parametrize(
    "behind", ['"normalizer": {"type": "Lowercase"}', '"norm\\u0061lizer": null', '"x": 1']
)
def test_what_stands_behind_the_model_is_not_taken(behind: str) -> None:
    parts = known_parts((_words().to_str()[:-1] + f", {behind}}}").encode())
    assert parts is not None
    with pytest.raises(Exception, match="trailing characters"):
        LibraryTokenizer.assemble(*parts)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "no JSON", '{"normalizer": 5, "model": {}}'],
)
def test_what_is_no_tokenizer_has_no_parts(text: str) -> None:
    assert known_parts(text.encode()) is None


_names = st.sampled_from(
    ["type", "Sequence", "Replace", "Split", "pattern", "Regex", "String", "content", "single"]
)
_values = st.recursive(
    st.none() | st.integers() | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
)


@given(
    head=st.dictionaries(
        st.sampled_from(["normalizer", "decoder", "post_processor", "added_tokens"]), _values
    )
)
def test_any_head_is_judged(head: dict[str, Any]) -> None:
    text = json.dumps({"version": "1.0", **head})[:-1] + ', "model": {"type": "BPE"}}'
    parts = known_parts(text.encode())
    assert parts is None or parts[0] == {"version": "1.0", **head}


@pytest.mark.parametrize("fixture", ["pico_llama", "pico_bert"])
def test_the_models_of_the_tests_run_here(fixture: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(fixture)
    assert isinstance(Tokenizer.open(folder)._backend, LibraryTokenizer)
