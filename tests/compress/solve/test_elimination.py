"""Which units go, and what is left of a linear: against least squares in numpy and greedy search by hand."""

import numpy as np
import pytest
import torch
from edgepress.compress.solve import elimination
from edgepress.compress.solve.elimination import (
    bias_only,
    columns_of,
    eliminate,
    in_rounds,
    least_squares,
    removal_errors,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def inputs(rows: int, channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(channels, channels, generator=generator) / channels**0.5 + torch.eye(channels)
    return torch.randn(rows, channels, generator=generator) @ mixed + 0.5


def fitted_error(weight: Tensor, x: Tensor, kept: list[int]) -> float:
    """The mean squared output error when the columns ``kept`` fit the output of all, in float64."""
    target = (x @ weight.T).double().numpy()
    fit, *_ = np.linalg.lstsq(x[:, kept].double().numpy(), target, rcond=None)
    return float(np.square(x[:, kept].double().numpy() @ fit - target).sum()) / len(x)


@pytest.mark.parametrize("biased", [False, True])
def test_repair_is_numpys_least_squares(biased: bool) -> None:
    x, weight = inputs(400, 12), torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(5, generator=torch.Generator().manual_seed(2)) if biased else None
    kept = torch.tensor([0, 2, 3, 7, 8, 11])
    gram, mean = x.T @ x / len(x), x.mean(0)
    found = least_squares(weight, bias, gram.clone, mean if biased else None, kept, 1e-9)
    design = torch.cat([x[:, kept], torch.ones(len(x), int(biased))], 1).double().numpy()
    target = (x @ weight.T + (0 if bias is None else bias)).double().numpy()
    expected, *_ = np.linalg.lstsq(design, target, rcond=None)
    assert np.allclose(found.weight.numpy(), expected[: len(kept)].T, atol=1e-3)
    if biased:
        assert found.bias is not None and np.allclose(found.bias.numpy(), expected[-1], atol=1e-3)


def test_repair_towards_another_output() -> None:
    x = inputs(400, 8)
    weight, other = (torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    gram, kept = x.T @ x / len(x), torch.tensor([1, 4, 5])
    gap = (other - weight) @ gram
    found = least_squares(weight, None, gram.clone, None, kept, 1e-9, gap)
    expected, *_ = np.linalg.lstsq(x[:, kept].double().numpy(), (x @ other.T).double().numpy(), rcond=None)
    assert np.allclose(found.weight.numpy(), expected.T, atol=1e-3)


def test_a_bias_alone_keeps_the_mean() -> None:
    x, weight, bias = inputs(100, 6), torch.randn(3, 6), torch.randn(3)
    kept = torch.tensor([0, 5])
    after = bias_only(weight, bias, x.mean(0), kept)
    assert after is not None
    assert torch.allclose(
        (x[:, kept] @ weight[:, kept].T + after).mean(0), (x @ weight.T + bias).mean(0), atol=1e-4
    )
    assert bias_only(weight, None, x.mean(0), kept) is None


@pytest.mark.parametrize(("size", "partitions"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_greedy_elimination_is_that_by_hand(size: int, partitions: int) -> None:
    x, weight = inputs(300, 12), torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    inverse = torch.linalg.inv(x.T @ x / len(x))
    units = 12 // size
    left, share = list(range(units)), units // partitions
    for _ in range(share - 1):
        gone = []
        for partition in range(partitions):
            mine = [unit for unit in left if unit // share == partition]
            errors = {
                unit: fitted_error(
                    weight, x, columns_of(torch.tensor([u for u in left if u != unit]), size).tolist()
                )
                for unit in mine
            }
            gone.append(min(errors, key=lambda unit: errors[unit]))
        left = [unit for unit in left if unit not in gone]
    found, raised = eliminate(weight.clone(), inverse.clone(), size, partitions, [1] * (share - 1))
    assert found.tolist() == left
    kept = columns_of(found, size).tolist()
    assert sum(raised) == pytest.approx(fitted_error(weight, x, kept), rel=1e-2)


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize(("size", "partitions"), [(1, 1), (2, 3)])
def test_units_move_together_without_another_result(
    size: int, partitions: int, in_columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = inputs(300, 36), torch.randn(4, 36, generator=torch.Generator().manual_seed(1))
    inverse = torch.linalg.inv((x.T @ x / len(x)).double())
    rounds = in_rounds(36 // size // partitions, 5)
    found = []
    monkeypatch.setattr(elimination, "_ROWS", 5)
    for dense in (0.0, 0.9):
        monkeypatch.setattr(elimination, "_DENSE", dense)
        own = inverse.T.contiguous().T if in_columns else inverse.clone()
        for count in range(1, len(rounds) + 1):
            found.append((dense, *eliminate(weight.double(), own.clone(), size, partitions, rounds[:count])))
    for (_, kept, raised), (_, dense_kept, dense_raised) in zip(
        found[: len(rounds)], found[len(rounds) :], strict=True
    ):
        assert torch.equal(kept, dense_kept)
        assert dense_raised == pytest.approx(raised, rel=1e-9)


@pytest.mark.chain
@given(st.integers(0, 1000), st.sampled_from([1, 2]))
def test_a_removal_costs_what_least_squares_cannot_make_up_for(seed: int, size: int) -> None:
    x = inputs(60, 6, seed)
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
    costs = removal_errors(
        weight,
        torch.linalg.inv((x.T @ x / len(x)).double()).float(),
        size,
        torch.arange(weight.shape[1] // size),
    )
    for unit, cost in enumerate(costs.tolist()):
        kept = [c for c in range(6) if c // size != unit]
        assert cost == pytest.approx(fitted_error(weight, x, kept), rel=0.02, abs=1e-3)


@given(st.integers(0, 200), st.integers(1, 40))
def test_rounds_add_up(total: int, rounds: int) -> None:
    found = in_rounds(total, rounds)
    assert sum(found) == total and len(found) <= rounds and max(found) - min(found) <= 1
