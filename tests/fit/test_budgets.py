"""Budgets as people type them, and what is no budget: with the value, and what one writes in its place."""

from __future__ import annotations

import pytest
from edgepress.errors import InputError, UnknownName
from edgepress.fit.budgets import DECODE, DISK, FIRST_TOKEN, KL, MEMORY, SLICE_KL, Budget, Quantity, parse


@pytest.mark.parametrize(
    ("quantity", "text", "bound"),
    [
        (DISK, "60MB", 60e6),
        (DISK, "60 mb", 60e6),
        (DISK, "1.5GiB", 1.5 * 2**30),
        (DISK, "6e7 B", 6e7),
        (KL, "0.1", 0.1),
        (KL, "0.1 nats", 0.1),
    ],
)
def test_a_value_with_its_unit(quantity: Quantity, text: str, bound: float) -> None:
    assert parse(quantity, text, ["here", "pi"]) == [Budget(quantity, bound)]


def test_what_differs_by_device_holds_on_all_or_on_those_named() -> None:
    both = parse(FIRST_TOKEN, "800ms", ["here", "pi"])
    assert both == [Budget(FIRST_TOKEN, 0.8, "here"), Budget(FIRST_TOKEN, 0.8, "pi")]
    assert parse(DECODE, "pi = 20 tok/s, here=100", ["here", "pi"]) == [
        Budget(DECODE, 20, "pi"),
        Budget(DECODE, 100, "here"),
    ]
    assert [one.shown() for one in parse(DECODE, "pi=20", ["pi"])] == ["decode ≥ 20 tok/s on pi"]


@pytest.mark.parametrize(
    ("quantity", "text", "said"),
    [
        (DISK, "60", "no unit"),
        (DISK, "60 tokens", "another unit"),
        (DISK, "sixty", "no value of disk"),
        (DISK, "1.2.3MB", "no value of disk"),
        (DISK, "-5MB", "bound of -5"),
        (KL, "0", "bound of 0"),
        (KL, "nan", "no value of KL"),
        (FIRST_TOKEN, "0.8", "no unit"),
        (DISK, "here=60MB", "same on every device"),
        (DECODE, "pi=20,pi=30", "two budgets"),
        (MEMORY, "pi=much", "no value of memory"),
        (SLICE_KL, "0.3", "of which slice"),
        (SLICE_KL, "people=0.3,people=0.2", "two budgets"),
    ],
)
def test_what_is_no_budget(quantity: Quantity, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse(quantity, text, ["here", "pi"])
    assert quantity.option in error.value.what and error.value.fix


def test_the_worst_of_slices_each_with_its_name() -> None:
    found = parse(SLICE_KL, "languages=0.3, people=0.2 nats", ["here"])
    assert found == [Budget(SLICE_KL, 0.3, slice="languages"), Budget(SLICE_KL, 0.2, slice="people")]
    assert [one.shown() for one in found] == ["worst KL of languages ≤ 0.3", "worst KL of people ≤ 0.2"]


def test_an_unknown_device() -> None:
    with pytest.raises(UnknownName, match="py"):
        parse(DECODE, "py=20", ["here", "pi"])


def test_what_holds() -> None:
    assert Budget(DISK, 60e6).holds(60e6) and not Budget(DISK, 60e6).holds(60e6 + 1)
    assert Budget(DECODE, 100, "pi").holds(100) and not Budget(DECODE, 100, "pi").holds(99.9)
