"""The type of the cache is chosen with the bits."""

from dataclasses import replace
from typing import Any

import pytest
from edgepress.compress.numbers.table_scheme import table_scheme
from edgepress.compress.recipe import parse
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import Option, Space, Unit
from edgepress.fit.choices import Choices, recipe_of
from edgepress.fit.corrections import Corrections
from edgepress.fit.methods import METHODS, Method
from edgepress.fit.quantities import MEMORY
from edgepress.fit.solve import Infeasible, Solution

from .test_corrections import SPACE


class OneSpace:
    """Of which the cache counts, or not."""

    def __init__(self, space: Space, *, counts: bool = True) -> None:
        self.space, self.counts = space, counts

    def of(self, _: str = "") -> Space:
        return self.space

    def cache_counts(self, _: Space) -> bool:
        return self.counts


def choices_of(space: Space, bound: float, *, counts: bool = True) -> Choices:
    spaces: Any = OneSpace(space, counts=counts)
    return Choices(spaces, [Budget(MEMORY, bound, "pi")], {}, Corrections())


@pytest.mark.parametrize(
    ("bound", "loss", "cached"),
    [(200e6, 1e-3, False), (95e6, 1e-3, True), (95e6, 10.0, False), (85e6, 10.0, True), (50e6, 1e-3, True)],
)
def test_the_cache_is_chosen_with_the_bits(bound: float, loss: float, cached: bool) -> None:
    """With room for all, or one that loses much: in float; where nothing else fits, in eight bits."""
    choices = choices_of(replace(SPACE, cache=8e6, cache_damage=loss), bound)
    found, chosen = choices.with_cache(METHODS[0])
    assert chosen == choices.solved(found) and found == replace(METHODS[0], cached=cached)
    both = [replace(found, cached=one) for one in (False, True)]
    solved = [choices.solved(one) for one in both]
    if all(isinstance(one, Solution) for one in solved):
        costs = [
            choices.cost(choices.predicted(one.options, method))  # type: ignore[union-attr]
            for one, method in zip(solved, both, strict=True)
        ]
        assert costs[cached] == min(costs)


def test_a_cache_that_is_not_bounded_or_packaged_stays_as_it_is() -> None:
    space = replace(SPACE, cache=8e6, cache_damage=1e-3)
    assert choices_of(space, 95e6, counts=False).with_cache(METHODS[0])[0] == METHODS[0]
    packaged = Method(packaged="best-small")
    assert choices_of(space, 95e6).with_cache(packaged)[0] == packaged


def test_other_budgets_are_named_where_there_are_some() -> None:
    one = choices_of(SPACE, 1e6)
    two = replace(one, budgets=[*one.budgets, Budget(MEMORY, 1e6, "here")])
    said = [each.why(Infeasible({"memory on pi": 90e6}), METHODS[0]) for each in (one, two)]
    assert said[0].startswith("memory ≤ 1.0 MB on pi would have to be ")
    assert said[1] == f"with the other budgets kept, {said[0]}"


@pytest.mark.parametrize(("enough", "said"), [(90e6, "MB"), (16.000001e6, "a little more")])
def test_a_bound_that_is_nearly_the_budget_is_not_called_the_same(enough: float, said: str) -> None:
    one = choices_of(SPACE, SPACE.resident + 16e6)
    assert one.why(Infeasible({"memory on pi": enough}), METHODS[0]).endswith(said)


def space(*tables: str | None, solves: bool) -> Space:
    """Of one group of linears in 4 bits, and an embedding and a head with one option each."""

    def option(name: str | None) -> tuple[Option, ...]:
        return (Option(None if name is None else table_scheme(name), 0.0, 1.0),)

    units = [Unit("block 0: q", ("a.q",), option("W4A16-g64"))]
    units += [Unit("table", (str(index),), option(name), True) for index, name in enumerate(tables)]
    return Space(tuple(units), 0.0, 0.0, solves_tables=solves)


@pytest.mark.parametrize(
    ("tables", "solves", "wanted"),
    [
        (("W4A16-g32",), True, {"scheme": "W4A16-g32"}),
        (("W3A16-g16", "W4A16-g32"), True, {"scheme": "W3A16-g16", "head": "W4A16-g32"}),
        (("W4A16-g32", "W4A16-g32"), True, {"scheme": "W4A16-g32", "head": "W4A16-g32"}),
        (("W4A16-g16+W3A16-g32@9",), True, {"scheme": "W4A16-g16+W3A16-g32@9"}),
        (("W4A16-g32",), False, None),
        (("W8A16-g32",), True, None),
        (("W4A16-g32", "W8A16-g32"), True, None),
        ((None,), True, None),
    ],
)
def test_tables_of_few_bits_are_solved(
    tables: tuple[str | None, ...], solves: bool, wanted: dict[str, str] | None
) -> None:
    found = recipe_of(space(*tables, solves=solves), [0] * (1 + len(tables)), Method(), {"length": 32})
    steps = [one for one in found["passes"] if one["pass"] == "embedding"]
    assert steps == ([] if wanted is None else [{"pass": "embedding", **wanted}])
    recipe = parse(found, "here")
    assert [None if one is None else one.name for one in recipe.tables] == [tables[0], tables[-1]]


@pytest.mark.parametrize(("tokens", "samples"), [(None, 64), (512.0, 64), (123.3, 265)])
def test_linears_are_rounded_by_as_many_tokens_however_short_samples_are(
    tokens: float | None, samples: int
) -> None:
    """Paragraphs of 123 tokens counted as 512 each left GPTQ a quarter of the text."""
    found = recipe_of(space("W8A16-g32", solves=False), [0, 0], Method(scaled=True), {"length": 512}, tokens)
    assert [one["samples"] for one in found["passes"]] == [samples, samples]


def test_a_recipe_names_no_more_samples_than_it_has() -> None:
    """Of 64 paragraphs 66 were to be read."""
    calibration = {"length": 512, "samples": 64}
    found = recipe_of(space("W8A16-g32", solves=False), [0, 0], Method(scaled=True), calibration, 123.3)
    assert [one["samples"] for one in found["passes"]] == [64, 64]
