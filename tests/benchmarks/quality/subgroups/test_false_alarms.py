"""A hundred compressions that harm all groups alike: at the level of five per cent, about five may raise an
alarm."""

import numpy as np
import pytest
from edgepress.benchmarks.quality.subgroups import group_harm
from edgepress.benchmarks.quality.subgroups.group_harm import Items, harms
from edgepress.benchmarks.quality.subgroups.measure_slices import Measured, report

Draw = np.random.Generator


def texts(draw: Draw, groups: int, contents: int) -> Items:
    """Contents differ in difficulty, which all groups share, and each text has a harm of its own."""
    hard = draw.lognormal(0, 0.5, contents).repeat(groups)
    harm = 1.2 * hard * draw.lognormal(0, 0.4, groups * contents)
    return items("nats/byte", groups, contents, harm, np.full(groups * contents, 60.0))


def choices(draw: Draw, groups: int, each: int) -> Items:
    changed = (draw.random(groups * each) < 0.1).astype(float)
    return items("changed", groups, each, changed, np.ones(groups * each))


def bands(draw: Draw, groups: int, windows: int) -> Items:
    tokens = draw.integers(20, 200, groups * windows).astype(float)
    return items("nats/token", groups, windows, tokens * draw.gamma(20, 0.005, groups * windows), tokens)


def items(unit: str, groups: int, contents: int, harm: np.ndarray, weight: np.ndarray) -> Items:
    names = [str(group) for _ in range(contents) for group in range(groups)]
    return Items(unit, names, [str(one) for one in range(contents) for _ in range(groups)], harm, weight)


def test_equal_harm_is_seldom_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_harm, "bootstrap_ci", lambda *_: None)  # intervals decide nothing
    alarms = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        found = [texts(draw, 53, 20), choices(draw, 21, 50), choices(draw, 11, 17), bands(draw, 7, 16)]
        measured = [Measured("a", "a", True, one.unit, harms(one, seed)) for one in found]
        alarms += report(measured, [])["worst"] is not None
    assert alarms <= 8  # 5 are the level; 9 or more have a chance of six per cent even there


def test_a_harm_of_twice_the_others_is_seen() -> None:
    draw = np.random.default_rng(0)
    one = texts(draw, 53, 20)
    harm = one.harm * np.where(np.array(one.groups) == "7", 2.0, 1.0)
    doubled = Items(one.unit, one.groups, one.contents, harm, one.weight)
    found = report([Measured("a", "a", True, one.unit, harms(doubled, 0))], [])
    assert found["worst"]["group"] == "7"
    group = next(group for group in found["slices"][0]["groups"] if group["group"] == "7")
    assert group["harm"] >= group["smallest_seen"] and 1.5 < group["times"] < 2.7
