"""The recursion on grids in types of GGUF: against a loop over single weights, and against plain rounding."""

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.block_types import BLOCK_TYPES
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import GGUF, Scheme
from edgepress.compress.pipeline.statistics import mean_square_of_outputs
from edgepress.compress.solve.column_recursion import quantize_blocks_in_order
from edgepress.compress.solve.damped_cholesky import damped, factorize
from torch import Tensor

DAMPING = 0.01
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(6, 256, generator=GENERATOR) * 0.05
# Inputs that hang together: what one channel loses another can make good.
MIXED = torch.randn(1024, 48, generator=GENERATOR) @ torch.randn(48, 256, generator=GENERATOR)
INPUTS = MIXED + torch.randn(1024, 256, generator=GENERATOR)
GRAM = INPUTS.T @ INPUTS / len(INPUTS)
ORDER = torch.sort(GRAM.diagonal(), descending=True, stable=True).indices


def naive(weight: Tensor, grid: QTensor) -> np.ndarray:
    """The weights ``[out, in]`` that a loop over channels ends with, in float64."""
    kind, order = BLOCK_TYPES[grid.scheme.format], ORDER.numpy()
    hessian = damped(GRAM, DAMPING).numpy().astype(np.float64)[np.ix_(order, order)]
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left = weight.numpy().astype(np.float64)[:, order]
    found = np.empty_like(left)
    for place, channel in enumerate(order):
        group = channel // kind.size
        scale = grid.scale[:, group].numpy().astype(np.float64)
        low = 0.0 if grid.minimum is None else grid.minimum[:, group].numpy().astype(np.float64)
        code = kind.nearest(torch.from_numpy((left[:, place] + low) / scale)).numpy()
        found[:, place] = code * scale - low
        error = (left[:, place] - found[:, place]) / upper[place, place]
        left[:, place + 1 :] -= error[:, None] * upper[place, place + 1 :]
    return found[:, np.argsort(order)]


@pytest.mark.parametrize("name", GGUF)
def test_later_channels_absorb_the_errors_of_earlier_ones(name: str) -> None:
    grid = quantize(WEIGHT, Scheme.parse(name), importance=GRAM.diagonal())
    factor = factorize(GRAM, DAMPING, ORDER)
    assert factor is not None
    left = torch.zeros(len(WEIGHT))
    solved = quantize_blocks_in_order(WEIGHT, grid, factor, ORDER, left=left)
    assert torch.equal(solved.scale, grid.scale) and solved.scheme == grid.scheme

    def error(found: Tensor) -> float:
        return mean_square_of_outputs(found - WEIGHT, GRAM)

    ours, loop = error(solved.dequantize()), error(torch.from_numpy(naive(WEIGHT, grid)).float())
    assert ours < 0.7 * error(grid.dequantize())
    assert ours == pytest.approx(loop, rel=0.1)  # a tie may fall either way, and what follows with it
    under = mean_square_of_outputs(solved.dequantize() - WEIGHT, damped(GRAM, DAMPING))
    assert float(left.sum()) == pytest.approx(under, rel=1e-2)


def test_a_group_of_zeros_stays_zero_where_nothing_comes_to_it() -> None:
    weight = torch.zeros(2, 256)
    grid = quantize(weight, Scheme.parse("Q4_K"))
    factor = factorize(GRAM, DAMPING, ORDER)
    assert factor is not None
    assert not quantize_blocks_in_order(weight, grid, factor, ORDER).dequantize().any()
