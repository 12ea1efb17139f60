"""Steps and rates at which ``fit`` learns are those of packaged recipes."""

from typing import Any

import pytest
from edgepress.compress.recipe import load_recipe
from edgepress.compress.recipe_files import step_of
from edgepress.fit.methods import QAT, TUNE, Method


def learning(scheme: str, learned: str) -> dict[str, Any]:
    return Method(epochs=5, learned=learned).passes({"a": scheme}, [], tied=True, samples=None)[-1]


@pytest.mark.parametrize(
    ("scheme", "recipe"), [("W2A16-g64", "w2a16-tuned"), ("W3A16-g64", "w3a16-tuned"), ("W4A16-g64", "best")]
)
def test_it_learns_at_the_rate_of_the_recipe(scheme: str, recipe: str) -> None:
    found = learning(scheme, TUNE)["training"]
    written = dict(load_recipe(recipe).steps)[TUNE].training  # type: ignore[attr-defined]
    assert found.pop("epochs") == 5 and found.pop("measurements") == 3
    assert found and all(getattr(written, name) == value for name, value in found.items())


def test_codes_learn_at_the_rate_of_the_recipe() -> None:
    assert learning("W3A16-g64", QAT)["codes_rate"] == step_of("w3a16-qat", QAT)["codes_rate"] == 0.3
