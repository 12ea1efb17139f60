"""The corrected target: against its formula on explicit inverses, on tokens that it has not seen, and against
GPTAQ's recursion.
"""

import pytest
import torch
from edgepress.compress.numbers.grid import fit_grid, round_to_grid
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve.column_recursion import quantize_in_order
from edgepress.compress.solve.damped_cholesky import InverseFactor, factorize
from edgepress.compress.solve.group_solving import HALVES, RESIDUAL_HALVES, corrected
from torch import Tensor

DAMPING = 0.01


class Problem:
    """A weight ``[16, 48]`` and the inputs ``[rows, 48]`` of the original and of the compressed model.

    ``drift`` is how far these are from those, ``chance`` how much of that has nothing to do with them.
    """

    def __init__(self, seed: int, *, drift: float = 0.2, chance: float = 1.0, rows: int = 400) -> None:
        generator = torch.Generator().manual_seed(seed)
        mixing, other, turn = (torch.randn(48, 48, generator=generator) for _ in range(3))

        def draw() -> tuple[Tensor, Tensor]:
            original = torch.randn(rows, 48, generator=generator) @ mixing
            free = torch.randn(rows, 48, generator=generator) @ other
            return original, original + drift * (chance * free + (1 - chance) * original @ turn / 7)

        self.original, self.current = draw()
        self.unseen = draw()
        self.weight = torch.randn(16, 48, generator=generator)
        half, error = rows // 2, self.original - self.current
        self.inputs = {
            "gram": self.current.T @ self.current / rows,
            HALVES[0]: error[:half].T @ self.current[:half] / half,
            HALVES[1]: error[half:].T @ self.current[half:] / half,
        }
        self.missing = (chance * torch.randn(rows, 16, generator=generator)) + (
            (1 - chance) * self.current @ torch.randn(48, 16, generator=generator) / 7
        )
        self.stream = {
            RESIDUAL_HALVES[0]: self.missing[:half].T @ self.current[:half] / half,
            RESIDUAL_HALVES[1]: self.missing[half:].T @ self.current[half:] / half,
        }
        self.gram, self.cross = self.inputs["gram"], error.T @ self.current / rows
        self.order = torch.sort(self.gram.diagonal(), descending=True, stable=True).indices
        factor = factorize(self.gram, DAMPING, self.order)
        assert factor is not None
        self.factor: InverseFactor = factor

    def target(self, strength: float = 1.0) -> Tensor:
        return corrected(self.weight, self.inputs, self.factor, self.order, strength)

    def loss(self, weight: Tensor, *, unseen: bool = False) -> float:
        """``E‖W x̃ − Q x‖²``."""
        original, current = self.unseen if unseen else (self.original, self.current)
        return float((original @ self.weight.T - current @ weight.T).square().sum(1).mean())

    def inverse(self) -> Tensor:
        """H⁻¹ ``[48, 48]`` float64."""
        hessian = self.gram + DAMPING * self.gram.diagonal().mean() * torch.eye(48)
        return torch.linalg.inv(hessian.double())

    def unshrunk(self, missing: Tensor | float = 0.0) -> Tensor:
        """Ridge regression on the data: all that the tokens seem to tell, of the residual stream too."""
        rows, ridge = len(self.current), DAMPING * float(self.gram.diagonal().mean())
        inputs = torch.cat([self.current, (rows * ridge) ** 0.5 * torch.eye(48)]).double()
        wanted = self.original @ self.weight.T + missing
        outputs = torch.cat([wanted, (rows * ridge) ** 0.5 * self.weight.T]).double()
        found: Tensor = torch.linalg.lstsq(inputs, outputs).solution.T
        return found.float()


@pytest.mark.parametrize("chance", [1.0, 0.5, 0.0])
def test_is_the_least_squares_of_what_two_halves_agree_on(chance: float) -> None:
    problem = Problem(0, chance=chance)
    inverse, cross = problem.inverse(), problem.cross.double()
    first, second = (problem.inputs[name].double() for name in HALVES)
    agreed, explained = first @ inverse @ second.T, cross @ inverse @ cross.T
    kept = (agreed.diagonal() / explained.diagonal()).clamp(0, 1)
    expected = problem.weight.double() @ (torch.eye(48) + kept.diag() @ cross @ inverse)
    assert torch.allclose(problem.target().double(), expected, atol=1e-3)
    problem.inputs |= dict.fromkeys(HALVES, problem.cross)  # halves that agree on everything
    assert torch.allclose(problem.target(), problem.unshrunk(), atol=2e-3)


@pytest.mark.parametrize("chance", [1.0, 0.5, 0.0])
def test_what_the_residual_stream_lacks_is_made_up_for(chance: float) -> None:
    """``Q x`` is to be ``W x̃`` and what is missing: of that, each output as far as two halves agree."""
    problem = Problem(3, chance=chance)
    alone = problem.target()
    problem.inputs |= problem.stream
    inverse, (first, second) = problem.inverse(), (one.double() for one in problem.stream.values())
    whole = (first + second) / 2
    agreed, explained = (first @ inverse @ second.T).diagonal(), (whole @ inverse @ whole.T).diagonal()
    expected = alone.double() + (agreed / explained).clamp(0, 1)[:, None] * (whole @ inverse)
    assert torch.allclose(problem.target().double(), expected, atol=1e-3)
    problem.inputs |= dict.fromkeys(HALVES, problem.cross)
    problem.inputs |= dict.fromkeys(RESIDUAL_HALVES, whole.float())  # halves that agree on everything
    assert torch.allclose(problem.target(), problem.unshrunk(problem.missing), atol=2e-3)


def test_chance_is_left_and_what_is_systematic_is_made_up_for() -> None:
    ratios = {}
    for chance in (1.0, 0.5, 0.0):
        problems = [Problem(seed, drift=0.05, chance=chance, rows=96) for seed in range(6)]
        before = sum(one.loss(one.weight, unseen=True) for one in problems)
        for name, targets in (("ours", Problem.target), ("whole", Problem.unshrunk)):
            found = sum(one.loss(targets(one), unseen=True) for one in problems)
            ratios[name, chance] = found / before
    assert ratios["ours", 1.0] < 1.05 < 1.5 < ratios["whole", 1.0]
    assert ratios["ours", 0.5] < 0.9 * ratios["whole", 0.5]
    assert ratios["ours", 0.0] < 0.25


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
    inverse, work = problem.inverse(), problem.weight.double().clone()
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


@pytest.mark.chain
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
