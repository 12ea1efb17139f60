"""The check of MiniLM after training: every row is a recipe, and its verdict follows from both word sets."""

from __future__ import annotations

import pytest
from edgepress.benchmarks.lab.programs.ptq_minilm import rows, table_row
from edgepress.compress.recipe import parse


def test_every_row_is_a_recipe_with_a_label_of_its_own() -> None:
    for row in rows():
        recipe = parse({"name": row.name, "passes": row.passes}, row.name)
        assert [name for name, _ in recipe.steps] == [step["pass"] for step in row.passes]
    assert len({row.label for row in rows()}) == len({row.name for row in rows()}) == len(rows())


@pytest.mark.parametrize(
    ("row", "wordsim", "simlex", "verdict"),
    [
        ("w8a8-rtn", 0.002, -0.002, "0.002: met"),
        ("w8a8-rtn", 0.0021, 0.0, "0.002: met (better)"),
        ("w8a8-rtn", 0.0021, -0.0021, "0.002: missed"),
        ("w4-g64-gptq", -0.0101, 0.0, "0.01: missed"),
        ("w4-g64-gptq", -0.0099, 0.0, "0.01: met"),
    ],
)
def test_the_verdict_is_that_of_the_worse_set(row: str, wordsim: float, simlex: float, verdict: str) -> None:
    (chosen,) = [one for one in rows() if one.name == row]
    quality = {
        "cosine": {"row": 0.99, "original": 1.0},
        "spearman_wordsim353": {"row": wordsim, "original": 0.0},
        "spearman_simlex999": {"row": simlex, "original": 0.0},
    }
    assert table_row(chosen, quality)[-1] == verdict
