"""What a student that is held whole is planned to take: its activations against those that autograd keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.reading import read
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.algorithm import float_bytes
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.student_memory import WEIGHTS, whole_bytes
from edgepress.compress.train.students.student import Student
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
