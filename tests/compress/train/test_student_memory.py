"""What a student that is held whole is planned to take: its activations against those that autograd keeps,
and what a killed run goes on from against its file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.measure.reading import read
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.distill import Distill
from edgepress.compress.passes.qat import Qat
from edgepress.compress.passes.ternary import Ternary
from edgepress.compress.passes.tune import Tune
from edgepress.compress.pipeline.algorithm import float_bytes
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.learning import Learning
from edgepress.compress.train.student_memory import WEIGHTS, whole_bytes
from edgepress.compress.train.students.student import Student
from edgepress.compress.train.train_state import Saved
from edgepress.compress.train.training_options import TrainingOptions
from torch import Tensor

CPU = torch.device("cpu")
TOKENS = 120


def kept_by_autograd(source: WeightSource) -> int:
    """Bytes that a forward pass of ``TOKENS`` tokens keeps for the way back, weights left out."""
    student, kept = Student(source, CPU), {}
    student.learn_weights(list(source.anatomy.linears()), Masks())
    sizes = {linear.out_features * linear.in_features for linear in source.anatomy.linears()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= TOKENS and tensor.numel() not in sizes:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(3, 60, (1, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = read(student.model, MicroBatch(0, ids, torch.ones_like(ids), TOKENS), CPU)
    assert states
    return sum(kept.values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_activations_are_those_that_autograd_keeps(
    make_decoder: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    source = WeightSource.open(make_decoder(tmp_path / "m", family))
    more, less = (
        whole_bytes(source, TrainingOptions(precision="float32", micro_batch_tokens=tokens), 1)
        for tokens in (2 * TOKENS, TOKENS)
    )
    assert 0.8 < kept_by_autograd(source) / (more - less) < 1.2


def test_copies_and_a_teacher_that_stays_are_counted(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    source = WeightSource.open(make_decoder(tmp_path / "m", "llama"))
    weights = sum(map(float_bytes, source.anatomy.linears()))
    plain, stays, thin = TrainingOptions(), TrainingOptions(cache=False), TrainingOptions(checkpointing=True)
    one = whole_bytes(source, plain, 1)
    assert whole_bytes(source, plain, WEIGHTS) - one == (WEIGHTS - 1) * weights
    assert whole_bytes(source, stays, 1) - one >= weights
    assert whole_bytes(source, thin, 1) < one


@pytest.mark.chain
@pytest.mark.parametrize(
    ("first", "kind", "options"),
    [
        ("W2A16-g16", Tune, {}),
        ("W2A16-g16", Tune, {"learn": ["scales", "embedding"]}),
        ("W2A16-g16", Qat, {"embedding": True}),
        (None, Ternary, {"group_size": 32}),
        (None, Distill, {"train": "lora", "rank": 8}),
        (None, Distill, {}),
    ],
)
def test_the_saved_state_is_as_large_as_planned(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    first: str | None,
    kind: type[Learning],
    options: dict[str, Any],
) -> None:
    sizes: list[int] = []

    def write(self: Saved, step: int, data: dict[str, Any]) -> None:
        kept(self, step, data)
        sizes.append(self.path.stat().st_size)

    kept = Saved.write
    monkeypatch.setattr(Saved, "write", write)
    name, short = kind.__name__.lower(), {"batch_tokens": 64, "micro_batch_tokens": 64, "epochs": 1}
    steps = [] if first is None else [{"pass": "rtn", "scheme": first}]
    steps.append({"pass": name, "training": short, **options})
    compress_model(
        str(pico_llama),
        recipe=recipe(tmp_path, *steps),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=8,
        length=32,
    )
    anatomy = WeightSource.open(pico_llama).anatomy
    scales = sum(linear.out_features * linear.in_features // 16 for linear in anatomy.linears())
    learning = kind(training={**short, "cache": False}, **options)
    planned, at_end = (
        size(anatomy, 256, scales) for size in (learning.disk_bytes, learning.disk_bytes_at_end)
    )
    # Names, norms and the form of the file are as large as this model.
    assert planned <= 2 * max(sizes) < 1.1 * planned + 150_000
    # Once it has learned, the best numbers alone are kept while the result is written.
    assert at_end <= sizes[-1] < 1.1 * at_end + 75_000 and sizes[-1] < 0.5 * max(sizes)
