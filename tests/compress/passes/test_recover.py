"""``distill`` after pruning, with ``losses: outputs``: closer to the original on text it never learned from,
pruned weights at zero, the same bytes after a kill.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.train.learning import checkpoint_blocks
from edgepress.compress.train.students.student import Student
from edgepress.errors import TrainingError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

Watched = Callable[..., AbstractContextManager[list[float]]]

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
IDS = torch.arange(3, 43).view(2, 20)
PRUNE = {"pass": "magnitude", "sparsity": 0.5}
LEARN = {"batch_tokens": 64, "piece_tokens": 64, "learning_rate": 0.01, "epochs": 3, "precision": "float32"}


def compressed(model: Path, folder: Path, text: Path, *passes: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "recovered", "passes": list(passes)}))
    return compress_model(
        str(model), recipe=str(recipe), output=folder / "o", calibration=str(text), samples=24, length=32
    )


def recovered(model: Path, folder: Path, text: Path, **options: Any) -> Path:
    return compressed(model, folder, text, PRUNE, {"pass": "recover", **LEARN, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train": "norms"},
        {"train": "lora"},
        pytest.param({"checkpointing": True}, marks=pytest.mark.slow),
        {"precision": "float16"},
    ],
)
def test_the_divergence_falls_and_zeros_stay(
    pico_llama: Path, pico_text: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = recovered(pico_llama, tmp_path, pico_text, **options)
    step = read_json(path / "edgepress.json")["steps"][1]
    # Over six draws of the weights the mean ratio and three standard deviations make 0.96 at most.
    losses = dict(step["details"]["held_out"])
    assert losses[step["details"]["kept"]] < 0.97 * losses[0]
    assert step["details"]["precision"] == (LEARN | options)["precision"]
    assert step["details"]["skipped"] == step["details"]["retreats"] == 0
    pruned = compressed(pico_llama, tmp_path / "p", pico_text, PRUNE)
    before, after = WeightSource.open(pruned), WeightSource.open(path)
    for linear in before.anatomy.linears():
        one, other = before.dense(linear.name), after.dense(linear.name)
        assert torch.equal(other[one == 0], torch.zeros_like(other[one == 0]))
        assert torch.equal(one, other) == (options.get("train") == "norms")


def test_the_log_tells_every_step_and_measurement(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    path = recovered(pico_llama, tmp_path, pico_text, tokens=640)
    lines = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    details = read_json(path / "edgepress.json")["steps"][1]["details"]
    assert lines[0] == {"stage": 1, "pass": "distill"}
    measured = [line for line in lines if "held_out" in line]
    assert [[line["step"], line["held_out"]] for line in measured] == details["held_out"]
    assert [line["tokens"] for line in measured] == details["tokens"]
    assert details["tokens"][-1] == sum(line["tokens"] for line in lines if "loss" in line) == 640
    assert details["stopped"] == "tokens"


def test_checkpointing_changes_neither_values_nor_gradients(pico_llama: Path) -> None:
    gradients = []
    for checkpointed in (False, True):
        student = Student(WeightSource.open(pico_llama), CPU)
        student.learn_weights(list(student.source.anatomy.linears()), Masks())
        if checkpointed:
            checkpoint_blocks(student.blocks())
        student.model(IDS, use_cache=False).logits.square().sum().backward()
        gradients.append([change.grad for change in student.changes()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))  # type: ignore[arg-type]


def test_a_gradient_is_that_of_the_weight_in_its_unit(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    linear = next(source.anatomy.linears())
    mask = (
        torch.rand(linear.out_features, linear.in_features, generator=torch.Generator().manual_seed(0)) < 0.5
    )
    plain = load_model(pico_llama)
    weight = plain.get_submodule(linear.name).weight
    weight.data *= mask
    weight.requires_grad_(True)
    plain(IDS, use_cache=False).logits.square().sum().backward()

    class Known(Masks):
        def of(self, block: Any, device: Any) -> dict[str, torch.Tensor]:
            return {linear.name: mask}

    student = Student(source, CPU)
    student.module(linear.name).weight.data *= mask
    student.learn_weights([linear], Known())
    student.model(IDS, use_cache=False).logits.square().sum().backward()
    (change,) = student.changes()
    unit = weight.detach().square().mean().sqrt()
    assert change.grad is not None and weight.grad is not None
    torch.testing.assert_close(change.grad, weight.grad * mask * unit)


def test_a_killed_run_ends_with_the_same_bytes(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    watched: Watched,
) -> None:
    whole = recovered(pico_llama, tmp_path / "whole", pico_text)
    with watched("learning", kill_at=15):
        recovered(pico_llama, tmp_path / "killed", pico_text)
    again = recovered(pico_llama, tmp_path / "killed", pico_text)
    assert hash_tree(again) == hash_tree(whole) and (again / "train.jsonl").exists()


def test_an_encoder_recovers_too(pico_bert: Path, pico_text: Path, tmp_path: Path) -> None:
    path = recovered(pico_bert, tmp_path, pico_text)
    step = read_json(path / "edgepress.json")["steps"][1]
    # Over six draws of the weights the ratio is 0.16, with a standard deviation of 0.04.
    assert (
        dict(step["details"]["held_out"])[step["details"]["kept"]] < 0.8 * step["details"]["held_out"][0][1]
    )


def test_quantized_layers_are_refused_unless_they_are_left_alone(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    quantize = {"pass": "rtn", "scheme": "W4A16-g32", "targets": ["down"]}
    with pytest.raises(TrainingError, match="quantized"):
        compressed(pico_llama, tmp_path / "a", pico_text, quantize, {"pass": "recover", **LEARN})
    path = compressed(
        pico_llama,
        tmp_path / "b",
        pico_text,
        PRUNE,
        quantize,
        {"pass": "recover", **LEARN, "ignore": ["down"]},
    )
    assert len(WeightSource.open(path).schemes) == 3
