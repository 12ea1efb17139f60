"""Seeds and threads that cannot be are typed errors of the Python interface too."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.compress.api import plan_model
from edgepress.compress.recipe import load_recipe
from edgepress.errors import EdgepressError, InputError, RecipeError
from edgepress.files.limits import (
    LARGEST_SEED,
    MOST_THREADS,
    finite_number,
    require_seed,
    require_threads,
    threads_in_words,
)
from edgepress.runtime.engine.sampling import Sampling

SEEDS: dict[str, Callable[[int], object]] = {
    "limits": require_seed,
    "sampling": lambda seed: Sampling(seed=seed),
    "profile": lambda seed: Protocol(seed=seed),
}


@pytest.mark.parametrize("value", [None, "1", True, [1], math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_what_no_float_holds_is_no_number(value: object) -> None:
    assert finite_number(value) is None


@pytest.mark.parametrize("value", [0, -3, 2.5, sys.float_info.max, 2**1000])
def test_what_a_float_holds_is_a_number(value: float) -> None:
    found = finite_number(value)
    assert found == value and type(found) is float


@pytest.mark.parametrize("place", SEEDS)
def test_seeds_have_bounds(place: str) -> None:
    for seed in (0, LARGEST_SEED):
        SEEDS[place](seed)
    for seed in (-1, LARGEST_SEED + 1):
        with pytest.raises(InputError, match="seed"):
            SEEDS[place](seed)


def test_threads_have_bounds() -> None:
    assert [require_threads(threads) for threads in (None, 1, MOST_THREADS)] == [None, 1, MOST_THREADS]
    for threads in (0, -1, MOST_THREADS + 1):
        with pytest.raises(InputError, match="threads"):
            require_threads(threads)


def test_one_thread_is_a_thread() -> None:
    assert [threads_in_words(count) for count in (1, 2)] == ["1 thread", "2 threads"]


@pytest.mark.parametrize(
    "text",
    [
        "calibration: {seed: -1}",
        "calibration: {samples: 0}",
        "calibration: {length: 1e9}",
        "training: {seed: 9223372036854775808}",
    ],
)
def test_recipes_too(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"passes: [{{pass: qat, scheme: W4A16-g32}}]\n{text}\n")
    with pytest.raises(RecipeError, match=text.partition("{")[2].partition(":")[0]):
        load_recipe(str(recipe))


def test_a_model_directory_that_is_no_model_is_typed(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(EdgepressError, match="directory"):
        plan_model(str(tmp_path), scheme="W8A8")
