"""Pruning by a score: Wanda against a loop over rows, and inputs without any size."""

import pytest
import torch
from edgepress.compress.passes.prune import Prune
from edgepress.compress.pipeline.statistics import Gram, MeanSquare

from .test_gptq import LayerBlock, problem


def test_each_row_loses_its_lowest_products(layer_block: LayerBlock) -> None:
    weight, gram = problem(0)
    block, linear = layer_block(weight, gram)
    block.statistics[linear.name]["meansquare"] = gram.diagonal()  # type: ignore[index]
    Prune(score="wanda", sparsity=0.5, targets=("down",)).apply(block)
    for row in range(24):
        cost = [abs(float(weight[row, j])) * float(gram[j, j]) ** 0.5 for j in range(64)]
        kept = sorted(range(64), key=lambda j: (cost[j], j))[32:]
        assert block.masks[linear.name][row].nonzero().flatten().tolist() == sorted(kept)
    scores = weight.abs() * gram.diagonal().sqrt()
    expected, whole = scores * ~block.masks[linear.name], scores.square().sum()
    (status,) = block.statuses
    assert status.status == "ok" and status.error == pytest.approx(float(expected.square().sum() / whole))


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_inputs_that_say_nothing_leave_magnitude(value: float, layer_block: LayerBlock) -> None:
    weight, gram = problem(1)
    block, linear = layer_block(weight, gram)
    block.statistics[linear.name]["meansquare"] = torch.full((64,), value)  # type: ignore[index]
    Prune(score="wanda", sparsity=0.5, targets=("down",)).apply(block)
    (status,) = block.statuses
    assert status.status == "fallback-magnitude" and status.detail
    kept = block.masks[linear.name]
    for row, mask in zip(weight.abs(), kept, strict=True):
        assert float(row[mask].min()) >= float(row[~mask].max())


def test_the_mean_square_is_the_diagonal_of_the_gram() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    square, gram = MeanSquare(6, torch.device("cpu")), Gram(6, torch.device("cpu"))
    for part in (rows[:20], rows[20:]):
        square.update(part, None)
        gram.update(part, None)
    assert torch.allclose(square.value(), gram.value().diagonal(), atol=1e-6)
