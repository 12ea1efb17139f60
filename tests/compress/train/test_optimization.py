"""The scale of losses: down at once, up with patience, and not at all where nothing moves it."""

from dataclasses import asdict

from edgepress.compress.train.optimization import LossScale


def test_it_halves_when_a_gradient_overflows_and_doubles_after_a_calm() -> None:
    scale = LossScale.begun(moves=True)
    first = scale.factor
    scale.overflowed()
    assert scale.factor == first / 2 and scale.skipped == 1 and scale.moves
    for _ in range(199):
        scale.held()
    assert scale.factor == first / 2
    assert LossScale(**asdict(scale)) == scale
    scale.held()
    assert scale.factor == first and scale.calm == 0
    for _ in range(10_000):
        scale.held()
    assert scale.factor == 2.0**24


def test_one_stays_one() -> None:
    scale = LossScale.begun(moves=False)
    for _ in range(500):
        scale.held()
    assert scale.factor == 1 and not scale.moves
