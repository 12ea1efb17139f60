"""The pass ``vocabulary``: the rows that stay compute what they did, in torch and in the bundle."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.recipe import parse
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.runtime.api import open_bundle
from edgepress.runtime.text.tokenizer import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from ...rounding import same_sums

pytestmark = pytest.mark.chain


TEXT = "the river ran under old stone bridges"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join([TEXT, "the river ran", "old bridges"]), encoding="utf-8")
    return path


def recipe(corpus: Path, *before: dict[str, object], **options: object) -> str:
    """The path of a recipe that ends in the pass."""
    path = corpus.with_suffix(".yaml")
    passes = [*before, {"pass": "vocabulary", "corpus": str(corpus), **options}]
    path.write_text(yaml.safe_dump({"passes": passes}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("tied", [True, False])
def test_what_stays_gives_the_same_logits(
    tied: bool, make_decoder: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    original = make_decoder(tmp_path / "model", tie_word_embeddings=tied)
    cut = compress_model(str(original), recipe=recipe(corpus), output=tmp_path / "cut")
    old, new = Tokenizer.open(original), Tokenizer.open(cut)
    assert [new.decode([one]) for one in new.encode(TEXT)] == [old.decode([one]) for one in old.encode(TEXT)]
    names = AutoTokenizer.from_pretrained(cut).convert_ids_to_tokens(range(new.vocab_size))
    kept = AutoTokenizer.from_pretrained(original).convert_tokens_to_ids(names)
    ids, renumbered = torch.tensor([old.encode(TEXT)]), torch.tensor([new.encode(TEXT)])
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(original)(ids).logits
        after = AutoModelForCausalLM.from_pretrained(cut)(renumbered).logits
    assert after.shape[-1] == new.vocab_size < before.shape[-1]
    assert same_sums(after, before[..., kept])


def test_an_encoder_embeds_as_before(pico_bert: Path, corpus: Path, tmp_path: Path) -> None:
    cut = compress_model(str(pico_bert), recipe=recipe(corpus), output=tmp_path / "cut")
    outputs = []
    for path in (pico_bert, cut):
        inputs = AutoTokenizer.from_pretrained(path)(TEXT, return_tensors="pt")
        with torch.no_grad():
            outputs.append(AutoModel.from_pretrained(path)(**inputs).last_hidden_state)
    assert torch.equal(*outputs)


def test_after_a_quantization_it_exports_and_generates(
    pico_llama: Path, corpus: Path, tmp_path: Path
) -> None:
    rounded = {"pass": "rtn", "scheme": "W4A16-g32"}
    cut = compress_model(str(pico_llama), recipe=recipe(corpus, rounded), output=tmp_path / "cut")
    plain = compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "plain")
    bundle = open_bundle(export_bundle(cut, output=tmp_path / "bundle"))
    whole = open_bundle(export_bundle(plain, output=tmp_path / "whole"))
    assert bundle.decoder.vocab_size < whole.decoder.vocab_size
    assert bundle.tokenizer.eos_ids == bundle.tokenizer.encode("<|im_end|>")
    assert isinstance(bundle.generate(TEXT, max_new_tokens=4).text, str)


def test_a_size_is_kept_to(pico_llama: Path, corpus: Path, tmp_path: Path) -> None:
    cut = compress_model(str(pico_llama), recipe=recipe(corpus, size=262), output=tmp_path / "cut")
    assert Tokenizer.open(cut).vocab_size <= 262


def test_nothing_may_follow(corpus: Path) -> None:
    cutting = {"pass": "vocabulary", "corpus": str(corpus)}
    with pytest.raises(RecipeError, match="must be the last pass"):
        parse({"passes": [cutting, {"pass": "rtn", "scheme": "W4A16"}]}, "here")
