"""Sensitivities against a naive loop over tokens, and against the damage that was really done."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import Measure
from edgepress.compress.measure.sensitivity import ChangeLosses
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.objective import ask, objective_for, total_loss
from torch import Tensor

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
Swept = Callable[..., dict[str, Tensor]]


def measure(others: dict[str, list[QTensor]]) -> Measure:
    def of(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, ChangeLosses]:
        names = [linear.name for linear in block.linears()]
        return {name: ChangeLosses(name, weight(name), others[name]) for name in names}

    return of


def micro_batches(count: int, rows: int, length: int) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(4)
    found = []
    for number in range(count):
        ids = torch.randint(3, 100, (rows, length), generator=generator)
        found.append(MicroBatch(number, ids, torch.ones_like(ids), ids.numel()))
    return found


def candidates(source: WeightSource, *schemes: str) -> dict[str, list[QTensor]]:
    return {
        linear.name: [quantize(source.dense(linear.name), Scheme.parse(scheme)) for scheme in schemes]
        for linear in source.anatomy.linears()
    }


def test_it_is_the_naive_sum_over_tokens(pico_llama: Path, swept: Swept) -> None:
    source = WeightSource.open(pico_llama)
    others, asked = candidates(source, "W2A16-g32", "W4A16-g32"), micro_batches(1, 2, 9)
    found = swept(pico_llama, asked, measure(others))
    model = load_model(pico_llama).requires_grad_(True)
    seen: dict[str, list[Tensor]] = {}
    for name in others:
        linear = model.get_submodule(name)
        linear.register_forward_hook(
            lambda _, inputs, output, name=name: _keep(seen, name, inputs[0], output)
        )
    logits = model(asked[0].input_ids, use_cache=False).logits.flatten(0, 1)
    log_probabilities = torch.log_softmax(logits, -1)
    drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=torch.Generator().manual_seed(3))
    log_probabilities.gather(-1, drawn).sum().backward()
    for name, tensors in others.items():
        x, output = (tensor.flatten(0, 1) for tensor in seen[name])
        gradient = seen[name][1].grad
        assert gradient is not None
        for index, other in enumerate(tensors):
            change = other.dequantize() - source.dense(name)
            naive = 0.0
            for row, slope in zip(x, gradient.flatten(0, 1), strict=True):
                naive += float(slope @ (change @ row)) ** 2
            assert float(found[name][index]) == pytest.approx(0.5 * naive / len(x), rel=1e-3), (
                name,
                output.shape,
            )


def _keep(seen: dict[str, list[Tensor]], name: str, x: Tensor, output: Tensor) -> None:
    output.retain_grad()
    seen[name] = [x.detach(), output]


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_it_predicts_the_damage_that_rounding_does(
    pico_llama: Path, pico_bert: Path, kind: str, swept: Swept
) -> None:
    path = pico_llama if kind == "decoder" else pico_bert
    source = WeightSource.open(path)
    others, asked = candidates(source, "W4A16-g32"), micro_batches(8, 4, 24)
    predicted = swept(path, asked, measure(others))
    objective = objective_for(source.anatomy, 10**6)
    teacher = load_model(path)
    answers = [ask(objective, teacher, batch, CPU) for batch in asked]
    ratios = []
    for name, (other,) in others.items():
        student = load_model(path)
        student.get_submodule(name).weight.data = other.dequantize()  # type: ignore[union-attr,assignment]
        loss = sum(
            total_loss(objective, student, batch, answer, CPU)
            for batch, answer in zip(asked, answers, strict=True)
        )
        ratios.append(float(predicted[name][0]) / (loss / sum(batch.tokens for batch in asked)))
    ordered = sorted(ratios)
    assert 0.4 < ordered[len(ordered) // 2] < 2.5
    assert ordered[0] > 0.1 and ordered[-1] < 10
