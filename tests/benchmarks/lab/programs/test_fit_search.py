"""Two searches side by side: areas of their fronts, their best, and which trials were built."""

import math
from argparse import Namespace
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.fit_search import (
    cost,
    hypervolume,
    options_of,
    points,
    rows,
    sentences,
)
from edgepress.errors import InputError
from edgepress.fit.quantities import COSINE, KL


def test_the_area_of_a_front_counts_each_part_once() -> None:
    assert hypervolume([(1.0, 3.0), (2.0, 1.0)], (4.0, 4.0)) == 3 * 1 + 2 * 2
    assert hypervolume([(1.0, 3.0), (2.0, 1.0), (3.0, 2.0), (1.0, 3.5)], (4.0, 4.0)) == 7  # dominated
    assert hypervolume([(4.0, 0.0), (0.0, 4.0)], (4.0, 4.0)) == 0  # at the edges


def test_rows_have_both_searches_in_the_box_of_all_points() -> None:
    found = {
        ("Optuna", 0): [(1.0, math.log(0.1)), (3.0, math.log(0.01))],
        ("random", 0): [(3.0, math.log(0.1)), (2.0, math.log(0.05))],
        ("Optuna", 1): [(1.0, math.log(0.01))],
        ("random", 1): [(2.0, math.log(0.02))],
    }
    first, second = rows(found, COSINE)
    # The first search reaches half of the box's width at no depth, and all of its depth at no width.
    assert first == ["0", "0.000", f"{math.log(2) / (2 * math.log(10)):.3f}", "0.9900", "0.9500"]
    assert second == ["1", "1.000", f"{math.log(5) / (2 * math.log(10)):.3f}", "0.9900", "0.9800"]
    assert rows(found, KL)[0][3:] == ["0.0100", "0.0500"]


def test_a_trial_that_several_searches_have_is_built_once() -> None:
    one, other = {"seconds": {"a": 60.0, "b": 30.0}}, {"seconds": {"b": 30.0, "c": 90.0}}
    assert cost([one, other]).startswith("4 trials of all searches, 3 of them built")
    assert cost([one, other]).endswith(" 3 minutes.")
    assert points({"points": [[5.0, 0.5]]}) == [(5.0, pytest.approx(math.log(0.5)))]


def test_short_sentences_are_spread_over_the_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    said = [f"The sentence with the number {number} has nine words." for number in range(6)]
    text.write_text(f"{' '.join(said[:3])} Too short.\n\n{' '.join(said[3:])} {said[0]}\n")
    found = Path(sentences(str(text), 3, tmp_path)).read_text()
    assert found.split("\n\n") == said[::2]
    with pytest.raises(InputError, match="has 6 short sentences"):
        sentences(str(text), 7, tmp_path)


def test_a_command_has_no_paths() -> None:
    sizes = {"max_disk": 2e5, "trials": 14, "seeds": 5, "samples": 16, "length": 32, "sentences": None}
    given = Namespace(model="m", text="t", work=Path("w"), **sizes)
    assert options_of(given) == "--max-disk 200000 --trials 14 --seeds 5 --samples 16 --length 32"
