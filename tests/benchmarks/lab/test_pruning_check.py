"""The check of the pruning passes: every row is a recipe, and no two look the same in the table."""

from __future__ import annotations

from edgepress.benchmarks.lab.programs.unstructured import rows
from edgepress.compress.recipe import parse


def test_every_row_is_a_recipe_with_a_label_of_its_own() -> None:
    for row in rows():
        recipe = parse({"name": row.name, "passes": list(row.passes)}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
    assert len({tuple(row.label) for row in rows()}) == len({row.name for row in rows()}) == len(rows())
