"""The student: the stored model to the bit, before it learns and after."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.train.students.relative import learn
from edgepress.compress.train.students.student import Student
from torch import nn

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
IDS = torch.arange(3, 43).view(2, 20)


@pytest.mark.parametrize("scheme", ["W3A16-g32", "W4A16_ASYM-g16", "W8A8"])
def test_a_student_computes_what_the_checkpoint_stands_for(
    pico_llama: Path, tmp_path: Path, scheme: str
) -> None:
    path = compress_model(str(pico_llama), scheme=scheme, output=tmp_path / "o")
    student = Student(WeightSource.open(path), CPU)
    with torch.no_grad():
        assert torch.equal(student.model(IDS).logits, load_model(path)(IDS).logits)
        student.learn(("scales", "norms", "biases", "embedding"))
        assert torch.equal(student.model(IDS).logits, load_model(path)(IDS).logits)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "opt", "qwen2", "bitnet"])
def test_every_kind_of_parameter_gets_a_gradient(
    make_decoder: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    path = compress_model(
        str(make_decoder(tmp_path / "m", model_type)), scheme="W4A16_ASYM-g32", output=tmp_path / "o"
    )
    source = WeightSource.open(path)
    student = Student(source, CPU)
    learned = student.learn(("scales", "zero_points", "norms", "biases"), frozenset({"none"}))
    names = {entry.name for entry in learned}
    assert len(names) == len(learned)
    assert {f"{name}.weight_scale" for name in source.schemes} <= names
    assert {f"{name}.weight_zero_point" for name in source.schemes} <= names
    assert {name for name in source.names() if name.endswith("bias")} <= names
    student.model(IDS).logits.square().sum().backward()
    # A bias of keys moves all scores of a query alike: its gradient is zero but for rounding.
    assert all(entry.change.grad is not None for entry in learned)
    assert sum(bool((entry.change.grad != 0).any()) for entry in learned) >= 0.9 * len(learned)  # type: ignore[operator]


def test_what_has_learned_is_as_it_is_stored(pico_llama: Path, tmp_path: Path) -> None:
    path = compress_model(str(pico_llama), scheme="W4A16_ASYM-g32", output=tmp_path / "o")
    student = Student(WeightSource.open(path), CPU)
    student.learn(("scales", "zero_points", "norms"))
    with torch.no_grad():
        for change in student.changes():
            change.add_(0.3 * torch.randn(change.shape, generator=torch.Generator().manual_seed(0)) - 2.0)
    for name, module in student.quantized.items():
        tensor = student.tensor(name)
        half = tensor.scale.to(torch.float16).to(torch.float32)
        assert torch.equal(half, tensor.scale) and bool((tensor.scale > 0).all())
        assert tensor.zero_point is not None and torch.equal(tensor.codes, module.codes)
        lowest, highest = tensor.scheme.code_range
        assert bool(((tensor.zero_point >= lowest) & (tensor.zero_point <= highest)).all())


def test_masked_layers_keep_their_zero_points(pico_llama: Path, tmp_path: Path) -> None:
    path = compress_model(str(pico_llama), scheme="W4A16_ASYM-g32", output=tmp_path / "o")
    student = Student(WeightSource.open(path), CPU)
    masked = next(iter(student.quantized))
    names = {entry.name for entry in student.learn(("zero_points",), frozenset({masked}))}
    assert len(names) == len(student.quantized) - 1 and f"{masked}.weight_zero_point" not in names


def test_a_change_is_in_units_and_rounded_with_a_gradient_that_passes() -> None:
    module = nn.Linear(3, 1)
    module.weight = nn.Parameter(torch.tensor([[1.0, 10.0, 100.0]]))
    learned = learn("w", module, "weight", torch.tensor([[1.0, 10.0, 100.0]]), torch.round)
    assert torch.equal(module.weight, torch.tensor([[1.0, 10.0, 100.0]]))
    with torch.no_grad():
        learned.change.add_(0.26)
    assert torch.equal(learned.value, torch.tensor([[1.0, 13.0, 126.0]]))
    module(torch.ones(1, 3)).sum().backward()
    assert learned.change.grad is not None
    assert learned.change.grad.tolist() == [[1.0, 10.0, 100.0]]


def test_decay_shrinks_the_value_not_the_change() -> None:
    linear = nn.Linear(4, 3)
    before = linear.weight.detach().clone()
    learned = learn("w", linear, "weight", torch.tensor(0.5), lambda value: value)
    with torch.no_grad():
        learned.change.add_(0.25)
    learned.decay(0.1)
    torch.testing.assert_close(learned.value, 0.9 * (before + 0.125))
