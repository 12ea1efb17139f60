"""A choice as a recipe: embedding and head are rounded by the pass where it can."""

from __future__ import annotations

import pytest
from edgepress.compress.numbers.table_scheme import table_scheme
from edgepress.compress.recipe import parse
from edgepress.fit.candidates import Option, Space, Unit
from edgepress.fit.found_recipe import recipe_of
from edgepress.fit.methods import Method


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
