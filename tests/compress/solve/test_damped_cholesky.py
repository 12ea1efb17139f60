"""The factor of the inverse Gram: against dense linear algebra, in place, at every panel boundary."""

import pytest
import torch
from edgepress.compress.solve.damped_cholesky import (
    MAX_DAMPING,
    all_finite,
    cholesky_in_place,
    damp_until_factored,
    damped,
    damping_status,
    factorize,
    invert_lower_in_place,
    inverted,
    permuted,
    solve_each,
    solved,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def gram_of(size: int, seed: int = 0) -> Tensor:
    inputs = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(seed))
    return inputs.T @ inputs / (3 * size)


@pytest.mark.chain
@given(size=st.integers(1, 40), panel=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_inverse_of_a_triangle_is_found_in_place(size: int, panel: int, seed: int) -> None:
    lower = torch.linalg.cholesky(gram_of(size, seed) + 0.1 * torch.eye(size)).contiguous()
    work = lower.clone()
    invert_lower_in_place(work, panel)
    assert torch.equal(work, work.tril())
    assert torch.allclose(work.double(), torch.linalg.inv(lower.double()), rtol=1e-3, atol=1e-4)


@given(size=st.integers(1, 40), panel=st.integers(1, 12), seed=st.integers(0, 99))
def test_permuted_is_two_indexings(size: int, panel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, order = torch.randn(size, size, generator=generator), torch.randperm(size, generator=generator)
    assert torch.equal(permuted(matrix, order, panel), matrix[order][:, order])


def test_cholesky_takes_no_memory_and_says_when_there_is_none() -> None:
    gram = gram_of(30)
    expected = torch.linalg.cholesky(gram)
    lower = cholesky_in_place(gram)
    assert lower is not None and lower.data_ptr() == gram.data_ptr()
    assert torch.allclose(lower, expected, atol=1e-6)
    assert cholesky_in_place(-torch.eye(5)) is None


@pytest.mark.parametrize("ordered", [True, False])
def test_the_factor_belongs_to_the_inverse_of_the_damped_permuted_gram(ordered: bool) -> None:
    gram = gram_of(50, seed=1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2)) if ordered else torch.arange(50)
    before = gram.clone()
    factor = factorize(gram, 0.05, order if ordered else None)
    assert factor is not None and torch.equal(gram, before)
    damped = gram[order][:, order] + 0.05 * gram.diagonal().mean() * torch.eye(50)
    assert torch.allclose(factor.upper.T @ factor.upper, torch.linalg.inv(damped), rtol=1e-3, atol=1e-3)


@pytest.mark.chain
@given(start=st.integers(0, 49), rows=st.integers(1, 50))
def test_a_panel_is_a_slice_of_the_factor(start: int, rows: int) -> None:
    factor = factorize(gram_of(50), 0.01)
    assert factor is not None
    stop = min(start + rows, 50)
    assert torch.equal(factor.panel(start, stop), factor.upper[start:stop, start:])


def test_damping_grows_until_the_matrix_factors() -> None:
    gram = gram_of(20)
    gram -= 0.5 * gram.diagonal().mean() * torch.eye(20)
    factor = factorize(gram, 0.01)
    assert factor is not None and factor.damping == pytest.approx(1.0)
    assert factorize(gram - 100 * torch.eye(20), 0.01) is None
    assert factorize(torch.zeros(20, 20), 0.01) is None
    assert factor.damping <= MAX_DAMPING


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_value_is_seen(value: float) -> None:
    matrix = torch.randn(7, 9)
    assert all_finite(matrix)
    matrix[6, 8] = value
    assert not all_finite(matrix)
    square = gram_of(9)
    square[3, 4] = value
    assert factorize(square, 0.01) is None


def test_what_does_not_factor_is_damped_more_until_it_does() -> None:
    size = 6
    ones = torch.ones(size, size)
    ones[0, 1] = ones[1, 0] = 1.5  # indefinite: its least eigenvalue is about -0.6
    factor, used = damp_until_factored(ones.clone, 0.01)
    assert factor is not None and used == pytest.approx(1)
    assert torch.allclose(factor @ factor.T, ones + used * torch.eye(size), atol=1e-5)
    assert damping_status(0.01, used, "fallback-rtn") == ("damped", "damping 1 instead of 0.01")
    assert damping_status(0.01, 0.01, "fallback-rtn") == ("ok", "")
    for hopeless in (-gram_of(size), torch.zeros(size, size), torch.full((size, size), torch.nan)):
        assert damp_until_factored(hopeless.clone, 0.01)[0] is None
        assert inverted(hopeless, 0.01) is None
    assert damping_status(0.01, None, "fallback-rtn")[0] == "fallback-rtn"


def test_the_inverse_is_that_of_the_damped_gram() -> None:
    gram = gram_of(12)
    gram[3], gram[:, 3] = 0, 0  # a channel that never fired
    found = inverted(gram, 0.1)
    assert found is not None
    expected = torch.linalg.inv(damped(gram, 0.1).double())
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-5)
    assert float(damped(gram, 0.1)[3, 3]) == pytest.approx(float(gram.diagonal().mean()))


def test_each_system_is_solved_alone() -> None:
    """Naive: one dense solve a row in float64; a system that does not factor is NaN and leaves the others."""
    matrices = torch.stack([gram_of(5, seed) * 10.0**seed for seed in range(4)])
    matrices[1, 2], matrices[1, :, 2] = 0, 0
    matrices[3] *= -1
    right = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    found = solve_each(matrices, right, 1e-3)
    for row in range(3):
        matrix = matrices[row].double()
        ridge = torch.where(matrix.diagonal() > 0, 1e-3 * matrix.diagonal(), 1.0)
        expected = torch.linalg.solve(matrix + torch.diag(ridge), right[row].double())
        assert torch.allclose(found[row].double(), expected, rtol=1e-3, atol=1e-6)
    assert bool(found[3].isnan().all())


@pytest.mark.parametrize(("size", "columns"), [(1, 1), (7, 3), (40, 90)])
def test_a_factored_system_is_solved_as_torch_solves_it(size: int, columns: int) -> None:
    factor = cholesky_in_place(gram_of(size, size + 3))
    right = torch.randn(columns, size)
    assert factor is not None
    torch.testing.assert_close(solved(factor, right.T), torch.cholesky_solve(right.T, factor))
