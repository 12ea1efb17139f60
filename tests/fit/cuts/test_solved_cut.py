"""What is cut is corrected by measuring: what turns out dearer than predicted is not taken."""

from functools import partial
from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.fit.candidates import Space, space_of
from edgepress.fit.cuts.cut_space import lost, solved_profile, with_cuts
from edgepress.fit.cuts.possible import Profile, cuts_of
from edgepress.fit.solve import Limit, Table

from .test_cut_space import losses_of


@pytest.mark.parametrize(
    ("size", "dearer", "cuts"), [(0.95, 1.0, True), (0.95, 50.0, True), (1.3, 1e6, False)]
)
def test_a_cut_is_taken_where_it_is_measured_to_help(
    size: float, dearer: float, cuts: bool, pico_llama: Path
) -> None:
    source = WeightSource.open(pico_llama)
    losses = losses_of(source, 3, 1e-3)
    whole = space_of(source, losses)
    at = partial(with_cuts, whole, source, losses, cuts_of(source))
    bound = size * sum(min(row) for row in whole.sizes)

    def asked(space: Space) -> tuple[Table, list[list[Limit]]]:
        return space.damages, [[Limit("size", space.sizes, bound)]]

    tried: list[Profile] = []

    def measured(profile: Profile) -> float:
        tried.append(profile)
        return dearer * lost(losses, profile)

    found = solved_profile(lambda factor: at(factor=factor), asked, lambda one: lost(losses, one), measured)
    assert bool(found) == cuts and tried and len(set(tried)) == len(tried) <= 3
    assert not cuts or found in tried


def test_nothing_is_measured_where_no_cut_is_predicted_to_help(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    losses = losses_of(source, 3, 1e6)
    whole = space_of(source, losses)
    at = partial(with_cuts, whole, source, losses, cuts_of(source))
    bound = 1.3 * sum(min(row) for row in whole.sizes)

    def measured(profile: Profile) -> float:
        raise AssertionError(profile)

    found = solved_profile(
        lambda factor: at(factor=factor),
        lambda space: (space.damages, [[Limit("size", space.sizes, bound)]]),
        lambda one: lost(losses, one),
        measured,
    )
    assert found == Profile()
