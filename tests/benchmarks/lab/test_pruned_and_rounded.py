"""The check of pruning before rounding: every row is a recipe with a label of its own."""

from __future__ import annotations

from edgepress.benchmarks.lab.programs.pruned_and_rounded import BASE, ROWS, described
from edgepress.compress.recipe import parse


def test_every_row_is_a_recipe_with_a_label_of_its_own() -> None:
    for row in ROWS:
        recipe = parse({"name": row.name, "passes": list(row.passes)}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
    assert len({described(row) for row in ROWS}) == len(ROWS)
    assert BASE in {row.name for row in ROWS}
