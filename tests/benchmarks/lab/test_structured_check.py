"""The check of the structured passes: every row is a recipe with a name of its own."""

from __future__ import annotations

from edgepress.benchmarks.lab.programs.structured import described, rows
from edgepress.compress.recipe import parse


def test_every_row_is_a_recipe_with_a_name_of_its_own() -> None:
    for row in rows():
        recipe = parse({"name": row.name, "passes": list(row.passes)}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
        assert described(row.passes).startswith(row.passes[0]["pass"])
    assert len({row.name for row in rows()}) == len(rows())
