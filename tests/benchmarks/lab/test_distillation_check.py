"""The check of distillation: its recipes are recipes, its text is there and the same every time."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from edgepress.benchmarks.lab.programs.distillation import LABELS, RECIPES, text
from edgepress.compress.recipe import parse


def test_every_row_is_a_recipe() -> None:
    for name, passes in RECIPES.items():
        assert [step for step, _ in parse({"name": name, "passes": passes}, name).steps] == [
            entry["pass"] for entry in passes
        ]
    assert LABELS.keys() == {"fp32", *RECIPES}


def test_the_text_is_sentences_and_words() -> None:
    if find_spec("gensim") is None:
        pytest.skip("the demo corpus comes with gensim")
    parts = text().strip().split("\n\n")
    assert text() == text() and len(set(parts)) == len(parts) > 1000
