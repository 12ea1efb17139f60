"""The check of the passes that learn: every row is a recipe of its own."""

from __future__ import annotations

import pytest
from edgepress.benchmarks.lab.programs.training import described, tables
from edgepress.compress.recipe import parse


@pytest.mark.parametrize("kind", ["recover", "qat"])
def test_every_row_is_a_recipe_with_a_label_of_its_own(kind: str) -> None:
    found = [row for rows in tables(kind, 4096) for row in rows]
    for row in found:
        recipe = parse({"name": row.name, "passes": list(row.passes)}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
    assert len({described(row.passes) for row in found}) == len({row.name for row in found}) == len(found)
