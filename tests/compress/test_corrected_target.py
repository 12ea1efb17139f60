"""The corrected target: against least squares on the data themselves, and GPTAQ's recursion."""

from __future__ import annotations

import torch
from edgepress.compress.column_recursion import quantize_in_order
from edgepress.compress.corrected_target import corrected
from edgepress.compress.grid import fit_grid, round_to_grid
from edgepress.compress.inverse_factor import Factor, factorize
from edgepress.compress.scheme import Scheme
from torch import Tensor

DAMPING = 0.01


class Problem:
    """A weight ``[16, 48]`` and the inputs ``[rows, 48]`` of the original and of the compressed model."""

    def __init__(self, seed: int, *, drift: float = 0.2, rows: int = 400) -> None:
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(48, 48, generator=generator)
        self.original = torch.randn(rows, 48, generator=generator) @ mixing
        noise = torch.randn(rows, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
        self.current = self.original + drift * noise
        self.weight = torch.randn(16, 48, generator=generator)
        self.gram = self.current.T @ self.current / rows
        self.cross = (self.original - self.current).T @ self.current / rows
        self.order = torch.sort(self.gram.diagonal(), descending=True, stable=True).indices
        factor = factorize(self.gram, DAMPING, self.order)
        assert factor is not None
        self.factor: Factor = factor

    def target(self, strength: float = 1.0) -> Tensor:
        return corrected(self.weight, self.cross, self.factor, self.order, strength)

    def loss(self, weight: Tensor) -> float:
        """``E‖W x̃ − Q x‖²``."""
        difference = self.original @ self.weight.T - self.current @ weight.T
        return float(difference.square().sum(1).mean())


def test_equals_ridge_regression_on_the_data() -> None:
    problem = Problem(0)
    rows, ridge = len(problem.current), DAMPING * float(problem.gram.diagonal().mean())
    inputs = torch.cat([problem.current, (rows * ridge) ** 0.5 * torch.eye(48)]).double()
    outputs = torch.cat([problem.original, (rows * ridge) ** 0.5 * torch.eye(48)]).double()
    expected = torch.linalg.lstsq(inputs, outputs @ problem.weight.double().T).solution.T
    assert torch.allclose(problem.target().double(), expected, atol=1e-3)


def test_half_the_strength_goes_half_the_way() -> None:
    problem = Problem(1)
    middle = (problem.target() + problem.weight) / 2
    assert torch.allclose(problem.target(0.5), middle, atol=1e-4)


def test_inputs_without_error_leave_the_weight() -> None:
    problem = Problem(2, drift=0.0)
    assert torch.equal(problem.target(), problem.weight)


def gptaq(problem: Problem, scale: Tensor, scheme: Scheme) -> Tensor:
    """GPTAQ's recursion, a column at a time on the full inverse: what column ``j`` lacks because its input
    drifted, ``w_j (x̃_j − x_j)``, is taken over by the columns after it.
    """
    size = 48 // scale.shape[1]
    hessian = problem.gram + DAMPING * problem.gram.diagonal().mean() * torch.eye(48)
    inverse, work = torch.linalg.inv(hessian.double()), problem.weight.double().clone()
    cross, result = problem.cross.double(), torch.zeros_like(work)
    for column in problem.order.tolist():
        step = scale[:, column // size].double()
        result[:, column] = round_to_grid(work[:, column], step, None, scheme) * step
        error = (work[:, column] - result[:, column]) / inverse[column, column]
        old = work[:, column].clone()
        work -= error[:, None] * inverse[column][None, :]
        pivot = inverse[column].clone()
        inverse -= torch.outer(pivot, pivot) / pivot[column]
        work += old[:, None] * (cross[column] @ inverse)[None, :]
    return result.float()


def test_no_worse_than_the_recursion_that_corrects_by_column() -> None:
    scheme = Scheme.parse("W4A16-g16")
    ours, theirs, plain = 0.0, 0.0, 0.0
    for seed in range(6):
        problem = Problem(seed)
        scale, _ = fit_grid(problem.weight, scheme)
        theirs += problem.loss(gptaq(problem, scale, scheme))
        for target in (problem.target(), problem.weight):
            grid = fit_grid(target, scheme, "mse", problem.gram.diagonal())
            tensor = quantize_in_order(target, *grid, problem.factor, problem.order, scheme)
            loss = problem.loss(tensor.dequantize())
            ours, plain = (ours, plain + loss) if target is problem.weight else (ours + loss, plain)
    assert ours < 1.02 * theirs
    assert theirs < plain
