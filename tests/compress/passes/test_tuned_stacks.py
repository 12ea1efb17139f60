"""Encoder–decoders that learn: from the original's distribution on the targets of the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

from ..conftest import Watched

pytestmark = pytest.mark.chain

Recipe = Callable[..., str]
TRAINING = {"epochs": 2, "batch_tokens": 128, "micro_batch_tokens": 64}
ROUNDED = {"pass": "rtn", "scheme": "W3A16-g16"}
STEPS: list[Any] = [
    ("t5", [ROUNDED, {"pass": "tune"}]),
    ("marian", [{"pass": "layers", "keep": 0.7, "repair": "none"}, {"pass": "recover"}]),
    ("bart", [{"pass": "qat", "scheme": "W3A16-g16"}]),
    ("whisper", [ROUNDED, {"pass": "tune"}]),
    pytest.param(
        "whisper",
        [{"pass": "narrow", "keep": 0.7, "multiple": 16}, {"pass": "recover"}],
        marks=pytest.mark.slow,
    ),
]


def learned(model: Path, recipe: str, text: Path, output: Path) -> Path:
    options: dict[str, Any] = {"calibration": str(text)}
    options |= {"samples": 8} if text.is_dir() else {"samples": 16, "length": 24}
    return compress_model(str(model), recipe=recipe, output=output, **options)


@pytest.mark.parametrize(("family", "steps"), STEPS)
def test_the_held_out_loss_falls_and_the_result_opens_in_transformers(
    family: str,
    steps: list[dict[str, Any]],
    make_encoder_decoder: Callable[..., Path],
    pico_text: Path,
    pico_sounds: Path,
    tmp_path: Path,
    recipe: Recipe,
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    model = make_encoder_decoder(tmp_path / "m", family)
    text = pico_sounds if family == "whisper" else pico_text
    steps = [*steps[:-1], {**steps[-1], "training": TRAINING}]
    out = learned(model, recipe(tmp_path, *steps), text, tmp_path / "o")
    found = read_json(out / "edgepress.json")["steps"][-1]["details"]
    held_out = dict(found["held_out"])
    assert found["measure"] == "kl" and held_out[found["kept"]] < 0.95 * held_out[0]
    if family == "whisper":
        return
    generator = torch.Generator().manual_seed(0)
    names = ("input_ids", "decoder_input_ids")
    ids = {name: torch.randint(3, 30, (2, 9), generator=generator) for name in names}
    with torch.no_grad():
        plain = AutoModelForSeq2SeqLM.from_pretrained(out).eval()(**ids).logits
        assert torch.allclose(load_model(out)(**ids).logits, plain, atol=1e-5)


@pytest.mark.parametrize("kill", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_killed_run_goes_on_with_the_same_bytes(
    kill: int, pico_t5: Path, pico_text: Path, tmp_path: Path, recipe: Recipe, watched: Watched
) -> None:
    steps = recipe(tmp_path, ROUNDED, {"pass": "tune", "training": TRAINING})
    whole = learned(pico_t5, steps, pico_text, tmp_path / "whole")
    with watched("learning", kill_at=kill):
        learned(pico_t5, steps, pico_text, tmp_path / "o")
    assert hash_tree(learned(pico_t5, steps, pico_text, tmp_path / "o")) == hash_tree(whole)
