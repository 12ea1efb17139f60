"""Which weights stay: against a sort in plain Python; shares, N:M groups and masks of before are exact."""

import pytest
import torch
from edgepress.compress.prune.unstructured import Pattern, keep_highest, keep_pattern
from edgepress.compress.recipe import parse
from edgepress.errors import RecipeError, ShapeError
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def scores(seed: int, rows: int = 6, columns: int = 8) -> Tensor:
    """With ties."""
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)).round(decimals=1)


def naive(values: list[float], drop: int) -> list[bool]:
    ranked = sorted(range(len(values)), key=lambda index: (values[index], index))
    return [index not in ranked[:drop] for index in range(len(values))]


@given(st.integers(0, 1000), st.floats(0, 0.99))
def test_the_lowest_of_the_layer_or_of_each_row_go(seed: int, sparsity: float) -> None:
    score = scores(seed)
    whole = keep_highest(score, sparsity, "layer")
    assert whole.flatten().tolist() == naive(score.flatten().tolist(), round(sparsity * 48))
    rows = keep_highest(score, sparsity, "row")
    assert rows.tolist() == [naive(row, round(sparsity * 8)) for row in score.tolist()]


@pytest.mark.chain
@given(st.integers(0, 1000), st.sampled_from(["1:2", "2:4", "4:8", "1:4", "7:8"]))
def test_each_group_keeps_its_highest(seed: int, text: str) -> None:
    score, (kept, size) = scores(seed), Pattern.parse(text)
    mask = keep_pattern(score, Pattern(kept, size))
    for row in range(6):
        for start in range(0, 8, size):
            group = slice(start, start + size)
            assert mask[row, group].tolist() == naive(score[row, group].tolist(), size - kept)


@pytest.mark.chain
@given(st.integers(0, 1000), st.floats(0, 0.99), st.floats(0, 0.99))
def test_what_is_pruned_already_counts(seed: int, first: float, second: float) -> None:
    earlier = keep_highest(scores(seed), first, "layer")
    for scope in ("layer", "row"):
        mask = keep_highest(scores(seed + 1), second, scope, earlier)  # type: ignore[arg-type]
        assert not bool((mask & ~earlier).any())
        if scope == "layer":
            assert int((~mask).sum()) == max(round(first * 48), round(second * 48))
    nested = keep_pattern(scores(seed + 2), Pattern(2, 4), earlier)
    assert not bool((nested & ~earlier).any()) and int(nested.view(-1, 4).sum(1).max()) <= 2


def test_groups_have_to_divide() -> None:
    with pytest.raises(ShapeError, match="groups of 3"):
        keep_pattern(scores(0), Pattern(1, 3))


@pytest.mark.parametrize("text", ["2", "4:2", "2:2", "0:4", "a:b", "2:4:8", "-1:4", ""])
def test_a_pattern_is_n_of_m(text: str) -> None:
    with pytest.raises(RecipeError, match="pattern"):
        parse({"passes": [{"pass": "wanda", "pattern": text}]}, "here")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sparsity": 0.5, "pattern": "2:4"},
        {"sparsity": 1.0},
        {"pattern": "2:4", "per_layer": {"q": 0.5}},
        {"sparsity": 0.5, "per_layer": {"q": 1.0}},
    ],
)
def test_the_share_is_given_once(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        parse({"passes": [{"pass": "magnitude", **options}]}, "here")
