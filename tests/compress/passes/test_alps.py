"""ALPS: against a loop that solves a linear system a round, the recursion, and shapes of trouble."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from edgepress.compress.passes.alps import Alps
from edgepress.compress.passes.sparsegpt import SparseGpt
from edgepress.compress.pipeline.block import output_error
from edgepress.compress.prune.gram_pruning import GramPruning, StackedRows
from edgepress.compress.prune.unstructured import Pattern, keep_highest, keep_pattern
from edgepress.compress.solve.damped_cholesky import damped, factorize
from torch import Tensor

from .test_gptq import LayerBlock, doubled, problem, trouble

Pruned = Callable[[Tensor, Tensor, Any], Tensor]


def naive(weight: Tensor, gram: Tensor, pattern: str | None, rounds: int) -> Tensor:
    """Both halves of the splitting by the book, in float64, before the last fit."""

    def project(values: Tensor) -> Tensor:
        size = values.abs()
        mask = keep_pattern(size, Pattern.parse(pattern)) if pattern else keep_highest(size, 0.5, "layer")
        return values * mask

    hessian = gram.double() + 0.01 * gram.diagonal().double().mean() * torch.eye(len(gram))
    scale = hessian.diagonal().sqrt()
    unit, scaled = hessian / torch.outer(scale, scale), weight.double() * scale
    sparse, gathered, pull = project(scaled), torch.zeros_like(scaled), 0.1
    for _ in range(rounds):
        right = scaled @ unit - gathered + pull * sparse
        dense = torch.linalg.solve(unit + pull * torch.eye(len(gram)), right.T).T
        sparse = project(dense + gathered / pull)
        gathered = gathered + pull * (dense - sparse)
        pull *= 1.3
    return sparse / scale


@pytest.mark.parametrize("pattern", [None, "2:4", "4:8"])
def test_equals_the_naive_loop(pattern: str | None, layer_block: LayerBlock) -> None:
    weight, gram = doubled(0)
    sparsity = None if pattern else 0.5
    options = Alps(sparsity=sparsity, pattern=pattern, targets=("down",), rounds=6)
    _, linear = layer_block(weight.float(), gram.float())
    factor = factorize(gram, 0.01)
    assert factor is not None and factor.damping == 0.01
    rows = StackedRows([linear], weight, [None], options)
    got, kept = options.solve(rows, damped(gram, 0.01), factor, lambda amount: None)
    expected = naive(weight, gram, pattern, 6)
    assert torch.equal(kept, expected != 0)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"pattern": "2:4"}, {"sparsity": 0.7}])
@pytest.mark.parametrize("seed", range(3))
def test_beats_the_recursion(options: dict[str, float | str], seed: int, pruned: Pruned) -> None:
    weight, gram = problem(seed)
    errors = []
    passes: list[GramPruning] = [SparseGpt(**options, targets=("down",), fit_steps=fits) for fits in (0, 10)]  # type: ignore[arg-type]
    for one in (*passes, Alps(**options, targets=("down",))):  # type: ignore[arg-type]
        result = pruned(weight, gram, one)
        errors.append(output_error(result - weight, weight, gram))
    recursion, fitted, solved = errors
    assert fitted < recursion and solved < fitted


@pytest.mark.parametrize("case", trouble())
def test_trouble_ends_in_a_sound_layer_and_an_honest_status(case: str, layer_block: LayerBlock) -> None:
    weight, gram, statuses = trouble()[case]
    block, linear = layer_block(weight, gram)
    Alps(sparsity=0.5, targets=("down",)).apply(block)
    block.check("alps")
    (status,) = block.statuses
    assert status.status.replace("magnitude", "rtn") in statuses
    assert (status.status == "ok") == (status.detail == "")
    assert int((~block.masks[linear.name]).sum()) == weight.numel() // 2
