"""Descent on the orthogonal matrices: exactness of a step, its direction, and what must not move."""

from __future__ import annotations

import pytest
import torch
from edgepress.compress.rotate.cayley import CayleyDescent, cayley, skew_direction, without
from edgepress.compress.rotate.orthogonal import mean_preserving, random_orthogonal
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def skew(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=generator(seed), dtype=torch.float64)
    return matrix - matrix.T


@pytest.mark.parametrize("size", [1, 2, 7, 24])
def test_the_transform_of_a_skew_matrix_is_orthogonal(size: int) -> None:
    found = cayley(5 * skew(size))
    assert torch.allclose(found @ found.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.det(found)) == pytest.approx(1)


def test_a_small_step_is_the_matrix_exponential_to_second_order() -> None:
    direction = 1e-2 * skew(6)
    expected = torch.linalg.matrix_exp(direction)
    assert float((cayley(direction) - expected).abs().max()) < float(direction.norm()) ** 3


def test_the_direction_is_that_of_steepest_descent() -> None:
    """Naive: of all skew matrices of one size, none makes a linear loss fall faster."""
    start = random_orthogonal(8, generator(1))
    gradient = torch.randn(8, 8, generator=generator(2), dtype=torch.float64)
    steepest = skew_direction(start, gradient)
    assert torch.allclose(steepest, -steepest.T)

    def slope(direction: Tensor) -> float:
        return float((gradient * (direction @ start)).sum() / direction.norm())

    assert slope(steepest) < 0
    assert all(slope(steepest) <= slope(skew(8, seed)) for seed in range(3, 50))


def test_a_vector_can_be_kept_where_it_is() -> None:
    vector = torch.full((9,), 1 / 3, dtype=torch.float64)
    direction = without(skew(9), vector)
    assert torch.allclose(direction, -direction.T)
    assert float((direction @ vector).abs().max()) < 1e-12
    descent = CayleyDescent(mean_preserving(9, generator()).unsqueeze(0), fixed=vector)
    for seed in range(5):
        descent.step(torch.randn(1, 9, 9, generator=generator(seed), dtype=torch.float64), 0.3)
    (found,) = descent.rotation
    assert torch.allclose(vector @ found, vector, atol=1e-12)
    assert torch.allclose(found @ vector, vector, atol=1e-12)


def test_descent_finds_the_rotation_between_two_sets_of_points() -> None:
    """Naive: the orthogonal Procrustes problem has a solution in closed form."""
    points = torch.randn(40, 5, generator=generator(3), dtype=torch.float64)
    hidden = cayley(0.4 * skew(5, 4))
    wanted = points @ hidden
    descent = CayleyDescent(torch.eye(5, dtype=torch.float64).unsqueeze(0), momentum=0.5)
    for step in range(200):
        rotation = descent.rotation.requires_grad_(True)
        (points @ rotation[0] - wanted).square().sum().backward()  # type: ignore[no-untyped-call]
        assert rotation.grad is not None
        gradient, descent.rotation = rotation.grad, rotation.detach()
        descent.step(gradient, 0.1 * (1 - step / 200))
    left, _, right = torch.linalg.svd(points.T @ wanted)
    assert torch.allclose(descent.rotation[0], left @ right, atol=1e-2)
    one = torch.eye(5, dtype=torch.float64)
    assert float((descent.rotation[0] @ descent.rotation[0].T - one).abs().max()) < 1e-10


def test_a_gradient_of_zeros_moves_nothing() -> None:
    start = random_orthogonal(4, generator()).unsqueeze(0)
    descent = CayleyDescent(start)
    descent.step(torch.zeros(1, 4, 4), 0.5)
    assert torch.allclose(descent.rotation, start)
