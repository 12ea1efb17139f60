"""Models that hear: every pass that works block by block goes through both stacks, calibrated with sounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import RecipeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

from ..conftest import Watched

pytestmark = pytest.mark.chain

# Ways to find codes, and zeros, of which others are here: of two stacks they know nothing.
LATER = [
    "rtn, scheme: W8A8",
    "smoothquant",
    "autoround, scheme: W4A16-g32, iterations: 2",
    "alps, sparsity: 0.5, rounds: 2",
    "prune, sparsity: 0.5, score: wanda",
    "allocate_sparsity, sparsity: 0.5",
]
RECIPES: list[Any] = [
    "gptq, scheme: W4A16-g32",
    "gptq, scheme: W8A8_STATIC, correction: 1",
    "awq, scheme: W4A16-g32",
    "block_qat, scheme: W4A16-g32, training: {epochs: 1}",
    "sparsegpt, sparsity: 0.5",
    "allocate, bits: 4, schemes: [W3A16-g16, W4A16-g16, W8A16-g16]",
    *(pytest.param(step, marks=pytest.mark.slow) for step in LATER),
]


@pytest.mark.parametrize("step", RECIPES)
def test_every_linear_of_both_stacks_is_treated_and_opens_in_transformers(
    step: str, pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSpeechSeq2Seq

    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\npasses: [{{pass: {step}}}]\n")
    options: dict[str, Any] = {"recipe": str(recipe), "output": tmp_path / "o"}
    options |= {} if step.startswith("rtn") else {"calibration": str(pico_sounds), "samples": 8}
    out = compress_model(str(pico_whisper), **options)
    source, before, found = (
        WeightSource.open(out),
        WeightSource.open(pico_whisper),
        read_json(out / "edgepress.json"),
    )
    names = [linear.name for linear in source.anatomy.linears()]
    assert {layer["name"] for layer in found["layers"]} == set(names)
    assert {layer["status"] for layer in found["layers"]} == {"ok"}
    assert not any(torch.equal(source.dense(name), before.dense(name)) for name in names)
    assert 0 < found["steps"][0]["damage"]["kl"] < 1
    # One forward pass is right in any case; what `generate` asks the encoder alone is not, where codes stay.
    rounded = any(scheme.activations for scheme in source.schemes.values())
    assert found["opens_in"]["transformers"]["answer"] == ("no" if rounded else "yes")
    read = torch.randn(1, 16, 200, generator=torch.Generator().manual_seed(0))
    written = torch.tensor([[34, 35, 3, 9, 4]])
    with torch.no_grad():
        ours = load_model(out)(input_features=read, decoder_input_ids=written).logits
        theirs = (
            AutoModelForSpeechSeq2Seq.from_pretrained(out)
            .eval()(input_features=read, decoder_input_ids=written)
            .logits
        )
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("units", [1, 4])
def test_a_killed_run_goes_on_with_the_same_bytes(
    units: int, pico_whisper: Path, pico_sounds: Path, tmp_path: Path, watched: Watched
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses: [{pass: gptq, scheme: W3A16-g16, correction: 1}]\n")
    command: dict[str, Any] = {"recipe": str(recipe), "calibration": str(pico_sounds), "samples": 6}
    whole = compress_model(str(pico_whisper), output=tmp_path / "whole", **command)
    with watched("compressing blocks", kill_at=1 + units):
        compress_model(str(pico_whisper), output=tmp_path / "o", **command)
    with watched("compressing blocks") as done:
        out = compress_model(str(pico_whisper), output=tmp_path / "o", **command)
    assert done == [units, *[1] * (5 - units)]
    assert hash_tree(out) == hash_tree(whole)


def test_other_passes_refuse_before_any_work(pico_whisper: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses:\n  - {pass: rtn, scheme: W8A8}\n  - {pass: width, keep: 0.5}\n")
    with pytest.raises(RecipeError, match="width"):
        plan_model(str(pico_whisper), recipe=str(recipe))
