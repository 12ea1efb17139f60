"""The fit on a support: against the normal equations of each row, and never worse than its start."""

import pytest
import torch
from edgepress.compress.pipeline.block import output_error
from edgepress.compress.solve.elimination import fit_support
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ..passes.test_gptq import problem


def setting(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    weight, gram = problem(seed, 12, 32)
    hessian = gram + 0.01 * gram.diagonal().mean() * torch.eye(32)
    return weight, hessian, torch.rand(12, 32, generator=torch.Generator().manual_seed(seed)) > 0.5


def naive(target: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros_like(target)
    for row in range(target.shape[0]):
        kept = mask[row].nonzero().flatten()
        matrix, right = hessian[kept][:, kept].double(), (target[row] @ hessian)[kept].double()
        result[row, kept] = torch.linalg.solve(matrix, right).float()
    return result


@pytest.mark.parametrize("seed", range(3))
def test_arrives_at_the_least_squares_answer(seed: int) -> None:
    target, hessian, mask = setting(seed)
    expected = naive(target, hessian, mask)
    assert torch.allclose(fit_support(target, hessian, mask, target * mask, 200), expected, atol=1e-3)
    mask[3] = False  # nothing is left of a row, and an answer is not moved
    again = fit_support(target, hessian, mask, expected * mask, 3)
    assert torch.allclose(again, expected * mask, atol=1e-3) and bool(torch.isfinite(again).all())


@pytest.mark.chain
@given(seed=st.integers(0, 500), steps=st.integers(0, 60))
def test_no_step_makes_it_worse_or_leaves_the_support(seed: int, steps: int) -> None:
    target, hessian, mask = setting(seed)
    one = fit_support(target, hessian, mask, target * mask, steps)
    other = fit_support(target, hessian, mask, target * mask, steps + 1)
    assert bool((other[~mask] == 0).all())
    error = [output_error(weight - target, target, hessian) for weight in (one, other)]
    assert error[1] <= error[0] * (1 + 1e-4) + 1e-9
