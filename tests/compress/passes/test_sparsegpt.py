"""SparseGPT: against a loop on the full inverse, its objective, and shapes of trouble."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from edgepress.compress.passes.prune import Prune
from edgepress.compress.passes.sparsegpt import SparseGpt, prune_columns
from edgepress.compress.pipeline.block import output_error
from edgepress.compress.prune.gram_pruning import StackedRows
from edgepress.compress.prune.unstructured import Pattern, keep_highest, keep_pattern
from edgepress.compress.solve.damped_cholesky import factorize
from torch import Tensor

from .test_gptq import LayerBlock, doubled, problem, trouble

Pruned = Callable[[Tensor, Tensor, Any], Tensor]


def naive(weight: Tensor, gram: Tensor, sparsity: float, pattern: str | None, block: int) -> Tensor:
    """Optimal brain surgeon in column order: each column done leaves the inverse Hessian."""
    work = weight.double().clone()
    hessian = gram.double() + 0.01 * gram.diagonal().double().mean() * torch.eye(len(gram))
    # The cost of a weight counts the channels from its own on, as the recursion meets it.
    pivots = [float(torch.linalg.inv(hessian[j:, j:])[0, 0]) for j in range(len(gram))]
    inverse = torch.linalg.inv(hessian)
    chosen = torch.ones_like(weight, dtype=torch.bool)
    size = Pattern.parse(pattern).size if pattern else block
    for j in range(len(gram)):
        if j % size == 0:
            columns = slice(j, j + size)
            cost = work[:, columns].square() / torch.tensor(pivots[columns], dtype=work.dtype)
            chosen[:, columns] = (
                keep_pattern(cost, Pattern.parse(pattern))
                if pattern
                else keep_highest(cost, sparsity, "layer")
            )
        error = torch.where(chosen[:, j], 0.0, work[:, j]) / inverse[j, j]
        work -= error[:, None] * inverse[j][None, :]
        pivot = inverse[j].clone()
        inverse -= torch.outer(pivot, pivot) / pivot[j]
        work[:, j] *= chosen[:, j]
    return work * chosen


@pytest.mark.parametrize("pattern", [None, "2:4", "4:8", "1:2"])
@pytest.mark.parametrize("block", [16, 24, 64])
def test_equals_the_naive_loop(pattern: str | None, block: int, layer_block: LayerBlock) -> None:
    weight, gram = doubled(0)
    sparsity = None if pattern else 0.6
    options = SparseGpt(sparsity=sparsity, pattern=pattern, targets=("down",), fit_steps=0)
    _, linear = layer_block(weight.float(), gram.float())
    factor = factorize(gram, 0.01)
    assert factor is not None and factor.damping == 0.01
    rows, group = (
        StackedRows([linear], weight, [None], options),
        Pattern.parse(pattern).size if pattern else block,
    )
    got = weight.T.contiguous()
    kept = prune_columns(got, factor, lambda cost, columns: rows.choose(cost.T, columns).T, block, group)
    expected = naive(weight, gram, 0.6, pattern, block)
    assert torch.equal(kept.T, expected != 0)
    torch.testing.assert_close(got.T, expected)


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"pattern": "2:4"}, {"sparsity": 0.7}])
@pytest.mark.parametrize("seed", range(3))
def test_beats_magnitude_on_its_own_objective(
    options: dict[str, float | str], seed: int, pruned: Pruned
) -> None:
    weight, gram = problem(seed)
    solved = pruned(weight, gram, SparseGpt(**options, targets=("down",)))  # type: ignore[arg-type]
    plain = pruned(weight, gram, Prune(**options, score="magnitude", targets=("down",)))  # type: ignore[arg-type]
    assert output_error(solved - weight, weight, gram) < 0.95 * output_error(plain - weight, weight, gram)


def test_the_last_zero_is_repaired_exactly(layer_block: LayerBlock) -> None:
    """With only the first channel pruned, what is left is the damped least-squares answer."""
    weight, gram = problem(5)
    block, linear = layer_block(weight, gram)
    earlier = torch.ones_like(weight, dtype=torch.bool)
    earlier[:, 0] = False
    block.masks[linear.name] = earlier
    SparseGpt(sparsity=0.0, targets=("down",), fit_steps=0).apply(block)
    rest = gram[1:, 1:] + 1e-2 * gram.diagonal().mean() * torch.eye(63)
    moved = weight[:, :1] @ torch.linalg.solve(rest, gram[1:, :1]).T
    assert torch.allclose(block.weight(linear)[:, 1:], weight[:, 1:] + moved, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("case", trouble())
def test_trouble_ends_in_a_sound_layer_and_an_honest_status(case: str, layer_block: LayerBlock) -> None:
    weight, gram, statuses = trouble()[case]
    block, linear = layer_block(weight, gram)
    SparseGpt(sparsity=0.5, targets=("down",)).apply(block)
    block.check("sparsegpt")
    (status,) = block.statuses
    assert status.status.replace("magnitude", "rtn") in statuses
    assert (status.status == "ok") == (status.detail == "")
    assert int((~block.masks[linear.name]).sum()) == weight.numel() // 2


def test_the_factor_takes_its_channels_in_their_own_order() -> None:
    factor = factorize(problem(6)[1], 0.01)
    assert factor is not None and torch.equal(factor.upper, factor.upper.triu())
