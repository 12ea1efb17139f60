"""Budgets as people type them, and what is no budget: with the value, and what one writes in its place."""

import pytest
from edgepress.errors import InputError, UnknownName
from edgepress.fit.budgets import Budget, parse, refuse_other_kinds
from edgepress.fit.quantities import ACCURACY, COSINE, DECODE, DISK, ENERGY, FIRST_TOKEN, KL, MEMORY, Quantity


@pytest.mark.parametrize(
    ("quantity", "text", "bound"),
    [
        (DISK, "60MB", 60e6),
        (DISK, "60 mb", 60e6),
        (DISK, "1.5GiB", 1.5 * 2**30),
        (DISK, "6e7 B", 6e7),
        (KL, "0.1", 0.1),
        (KL, "0.1 nats", 0.1),
        (COSINE, "0.98", 0.98),
        (ACCURACY, "91 %", 0.91),
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
        (ACCURACY, "91", "accuracy is at most 1"),
        (FIRST_TOKEN, "0.8", "no unit"),
        (DISK, "here=60MB", "same on every device"),
        (DECODE, "pi=20,pi=30", "two budgets"),
        (MEMORY, "pi=much", "no value of memory"),
        (DECODE, "pi=20@raspberry-pi-5", "only energy is modelled"),
    ],
)
def test_what_is_no_budget(quantity: Quantity, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse(quantity, text, ["here", "pi"])
    assert quantity.option in error.value.what and error.value.fix


def test_energy_is_counted_or_modelled_by_the_power_of_a_target() -> None:
    counted, modelled = parse(ENERGY, "here=200mJ,pi=0.3J@raspberry-pi-5", ["here", "pi"])
    assert counted == Budget(ENERGY, 0.2, "here") and counted.shown() == "energy ≤ 0.2 J on here"
    assert modelled.watts and modelled.shown().endswith(f"on pi, modelled at {modelled.watts:g} W")
    with pytest.raises(UnknownName, match="rasberry"):
        parse(ENERGY, "0.3J@rasberry-pi-5", ["here"])


def test_an_unknown_device() -> None:
    with pytest.raises(UnknownName, match="did you mean 'pi'"):
        parse(DECODE, "py=20", ["here", "pi"])
    with pytest.raises(UnknownName, match="--on here,jetson"):
        parse(DECODE, "jetson=20", ["here"])


def test_what_holds() -> None:
    assert Budget(DISK, 60e6).holds(60e6) and not Budget(DISK, 60e6).holds(60e6 + 1)
    assert Budget(DECODE, 100, "pi").holds(100) and not Budget(DECODE, 100, "pi").holds(99.9)


def test_a_budget_of_another_kind_of_model() -> None:
    refuse_other_kinds([Budget(DISK, 60e6), Budget(KL, 0.1)], "classifier", "mine")
    with pytest.raises(InputError, match="--max-kl: mine is a model of kind 'encoder'") as error:
        refuse_other_kinds([Budget(KL, 0.1)], "encoder", "mine")
    assert "--min-cosine" in error.value.fix and "--min-decode" not in error.value.fix
