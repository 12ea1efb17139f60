"""The card of a checkpoint: what a model hub reads of it, and what a person may do with it."""

import shlex
from collections.abc import Callable
from pathlib import Path

import edgepress
import pytest
import torch
from edgepress.compress.model_card import CARD, words_of
from huggingface_hub import ModelCard
from transformers import AutoModel, CompressedTensorsConfig

pytestmark = pytest.mark.chain


def test_every_checkpoint_has_a_card_and_so_has_its_bundle(pico_llama: Path, tmp_path: Path) -> None:
    edgepress.compress_model(pico_llama, scheme="W4A16", output=tmp_path / "small")
    card = ModelCard.load(tmp_path / "small" / CARD)
    assert card.data.pipeline_tag == "text-generation" and card.data.library_name == "transformers"
    assert "compressed-tensors" in card.data.tags and card.data.base_model is None
    (kl,) = card.data.eval_results
    assert kl.metric_type == "kl" and kl.metric_value > 0 and "tokens" in kl.dataset_name
    assert "edgepress export . -o ../bundle" in card.text and "## Known losses" in card.text
    edgepress.export_bundle(tmp_path / "small", output=tmp_path / "bundle")
    data = ModelCard.load(tmp_path / "bundle" / CARD).data
    assert {one.metric_type for one in data.eval_results} >= {"kl_mean"}


def test_the_commands_of_the_cards_work_where_they_lie(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepress.cli.entry import run

    edgepress.compress_model(pico_llama, scheme="W4A16", output=tmp_path / "small")
    for folder in ("small", "bundle"):
        monkeypatch.chdir(tmp_path / folder)
        text = Path(CARD).read_text(encoding="utf-8")
        command = text.partition("```\nedgepress ")[2].partition("\n")[0]
        assert run(shlex.split(command)) == 0


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")  # it says that it takes dequantize
def test_a_sentence_encoder_opens_where_nothing_calls_its_hooks(
    make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """sentence-transformers calls ``forward`` itself, and has weights made float as they are loaded."""
    model = make_encoder(tmp_path / "model")
    edgepress.compress_model(model, scheme="W8A8", output=tmp_path / "small")
    assert "CompressedTensorsConfig(dequantize=True)" in (tmp_path / "small" / CARD).read_text()
    asked = CompressedTensorsConfig(dequantize=True)
    small = AutoModel.from_pretrained(tmp_path / "small", quantization_config=asked).eval()
    ids = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        found = small.forward(**ids).last_hidden_state
        wanted = AutoModel.from_pretrained(model).eval()(**ids).last_hidden_state
    assert 0 < float((found - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_tags_are_the_words_of_the_recipe_each_once() -> None:
    assert words_of("awq + W4A16-g64 gptq + W4A16-g64 embedding") == ["awq", "w4a16-g64", "gptq", "embedding"]
