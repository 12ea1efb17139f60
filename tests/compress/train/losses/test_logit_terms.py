"""Divergences: the sums of their definitions, and what always holds of them."""

import math

import pytest
import torch
from edgepress.compress.train.losses.logit_terms import forward_kl, jensen_shannon, reverse_kl, with_rest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

pytestmark = pytest.mark.chain


def distribution(seed: int, outcomes: int = 7, rows: int = 3) -> Tensor:
    logits = 2 * torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(seed))
    return torch.log_softmax(logits, -1)


def naive_kl(one: list[float], other: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(one, other, strict=True))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_each_is_its_definition(first: int, second: int) -> None:
    teacher, student = distribution(first), distribution(second + 5000)
    for row, (p, q) in enumerate(zip(teacher.exp().tolist(), student.exp().tolist(), strict=True)):
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        expected = (naive_kl(p, q), naive_kl(q, p), 0.5 * naive_kl(p, middle) + 0.5 * naive_kl(q, middle))
        found = [float(each(teacher, student)[row]) for each in (forward_kl, reverse_kl, jensen_shannon)]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_merging_outcomes_never_raises_any(seed: int, kept: int) -> None:
    teacher, student = distribution(seed), distribution(seed + 5000)
    top = teacher.topk(kept, -1).indices
    few = [with_rest(one.gather(-1, top)) for one in (teacher, student)]
    torch.testing.assert_close(few[0].exp().sum(-1), torch.ones(3))
    for each in (forward_kl, reverse_kl, jensen_shannon):
        merged, whole = each(*few), each(teacher, student)
        assert bool((merged <= 1.001 * whole + 1e-4).all()) and bool((merged >= -1e-4).all())
    assert bool((jensen_shannon(teacher, student) <= math.log(2) + 1e-6).all())


def test_a_distribution_is_no_way_from_itself_and_pulls_nowhere() -> None:
    student = distribution(0).requires_grad_(True)
    for each in (forward_kl, reverse_kl, jensen_shannon):
        loss = each(student.detach(), torch.log_softmax(student, -1)).sum()
        (gradient,) = torch.autograd.grad(loss, student)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6) and float(gradient.abs().max()) < 1e-6
