"""The card of a checkpoint: what a model hub reads of it, and what a person may do with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import edgepress
import pytest
from edgepress.compress.model_card import CARD
from huggingface_hub import ModelCard

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
