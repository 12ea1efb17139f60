"""Passages end with a sentence, and what is too short is left out."""

import pytest
from edgepress.benchmarks.lab.makers.passages import passages


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (3, ["One two three.", "Four five six seven.", "Eight nine."]),
        (4, ["One two three. Four five six seven.", "Eight nine."]),
        (6, ["One two three. Four five six seven."]),
        (20, []),
    ],
)
def test_passages(words: int, expected: list[str]) -> None:
    assert list(passages("One two three. Four five\nsix seven. Eight nine.", words)) == expected
