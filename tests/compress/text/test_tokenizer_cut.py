"""Cutting a tokenizer: a text whose tokens stay is split as before, and any text can still be split."""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.text.tokenizer_cut import Cut, cut_tokenizer
from edgepress.errors import CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXT = "the river ran under old stone bridges while merchants counted copper coins"
OTHER = "engineers measured tides, winds and the weight of every cargo: ÄÖ 42 雪"


def content(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((path / "tokenizer.json").read_text("utf-8"))
    return result


def built(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(content))


def of_text(content: dict[str, Any], text: str = TEXT) -> Cut:
    return cut_tokenizer(content, built(content).encode(text).ids)


@pytest.fixture(scope="module")
def unigram() -> dict[str, Any]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, OTHER] * 20, trainer)
    result: dict[str, Any] = json.loads(tokenizer.to_str())
    return result


@pytest.fixture(params=["bpe", "wordpiece", "unigram"])
def original(
    request: pytest.FixtureRequest, pico_llama: Path, pico_bert: Path, unigram: dict[str, Any]
) -> dict[str, Any]:
    found = {"bpe": content(pico_llama), "wordpiece": content(pico_bert), "unigram": unigram}
    return found[request.param]


def test_a_text_whose_tokens_stay_is_split_as_before(original: dict[str, Any]) -> None:
    cut = of_text(original)
    before, after = built(original).encode(TEXT), built(cut.content).encode(TEXT)
    assert after.tokens == before.tokens
    assert [cut.kept[index] for index in after.ids] == before.ids
    assert len(cut.kept) < built(original).get_vocab_size()


def test_ids_are_dense_and_name_the_same_tokens(original: dict[str, Any]) -> None:
    cut = of_text(original)
    before, after = built(original), built(cut.content)
    assert after.get_vocab_size() == len(cut.kept)
    for new, old in enumerate(cut.kept):
        assert after.id_to_token(new) == before.id_to_token(old)


@pytest.mark.chain
@settings(max_examples=30)
@given(text=st.text(max_size=40))
def test_any_text_can_still_be_split(text: str, pico_llama: Path) -> None:
    before = built(content(pico_llama))
    after = built(of_text(content(pico_llama)).content)
    assert after.decode(after.encode(text).ids) == before.decode(before.encode(text).ids)


def test_the_most_wanted_come_first_and_with_what_they_are_made_of(pico_llama: Path) -> None:
    original = content(pico_llama)
    ids = built(original).encode(TEXT).ids
    least = len(cut_tokenizer(original, []).kept)
    whole = max(ids, key=lambda index: len(built(original).id_to_token(index)))
    cut = cut_tokenizer(original, [whole, *ids], size=least + 8)
    assert whole in cut.kept and len(cut.kept) <= least + 8
    token = built(original).id_to_token(whole)
    after = Tokenizer(models.BPE()).from_str(json.dumps(cut.content))
    assert token in [after.id_to_token(index) for index in after.encode(TEXT).ids]


def test_special_tokens_keep_their_places_in_templates(pico_bert: Path) -> None:
    cut = of_text(content(pico_bert))
    tokens = built(cut.content).encode(OTHER).tokens
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"


def test_too_small_a_size_says_what_is_needed(pico_llama: Path) -> None:
    with pytest.raises(CheckpointError, match="no text can do without"):
        cut_tokenizer(content(pico_llama), [], size=5)


def test_an_unknown_kind_is_refused(pico_llama: Path) -> None:
    original = content(pico_llama)
    original["model"] = {**original["model"], "type": "Lattice"}
    with pytest.raises(CheckpointError, match="Lattice"):
        cut_tokenizer(original, [])
