"""The harm of every group of one slice: a ratio of sums over its items, beside that of all other groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...records.summary import bootstrap_ci
from .significance import Numbers, more_changes, ratio_difference

# Less is of no concern, however certain it is: rounding weights to 8 bits does about that. By unit.
LEAST = {"nats/token": 0.01, "nats/byte": 0.0025, "changed": 0.02, "distance": 0.005, "effect": 0.1}
# A group is harmed more than the others where it loses a quarter more.
MORE = 1.25


@dataclass(frozen=True)
class Items:
    """What a slice measured, a row an item.

    Attributes:
        groups, contents: of each item; contents are what is drawn again for an interval.
        harm, weight: ``[items]``; the harm of a group is ``Σ harm ÷ Σ weight``.
        extras: other sums ``[items, 2]`` by name, shown beside the harm.
        confidence: ``[items]``, of choices: the original's in its own.
    """

    unit: str
    groups: Sequence[str]
    contents: Sequence[str]
    harm: Numbers
    weight: Numbers
    extras: dict[str, Numbers] = field(default_factory=dict)
    confidence: Numbers = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class GroupHarm:
    """One group of a slice.

    Attributes:
        harm, ci95: and the interval that holds 95 % of resampled contents.
        others: the harm of all other groups together; NaN where there are none. others_items: theirs.
        error: standard error of the difference to them.
        p: one-sided, not yet corrected, that the group is not harmed more than the others.
        extras: other ratios by name.
    """

    group: str
    items: int
    harm: float
    ci95: tuple[float, float] | None
    others: float
    error: float
    p: float
    extras: dict[str, float]
    others_items: int = 0


def harms(items: Items, seed: int) -> list[GroupHarm]:
    """The groups in the order in which they first appear."""
    names = list(dict.fromkeys(items.groups))
    contents = {name: place for place, name in enumerate(dict.fromkeys(items.contents))}
    place = np.array([contents[name] for name in items.contents])
    member = np.array([names.index(name) for name in items.groups])
    pair = np.stack([items.harm, items.weight], axis=1)
    return [_harm(items, name, member == index, pair, place, seed) for index, name in enumerate(names)]


def _harm(
    items: Items, name: str, mine: NDArray[np.bool_], pair: Numbers, place: NDArray[np.int64], seed: int
) -> GroupHarm:
    contents = int(place.max()) + 1
    group, others = (_by_content(pair[chosen], place[chosen], contents) for chosen in (mine, ~mine))
    own = group[group[:, 1] > 0]
    error, p, other = math.inf, 1.0, math.nan
    if (~mine).any():
        difference = ratio_difference(group, others)
        error, p, other = difference.error, difference.p, _ratio(others)
        if items.unit == "changed":
            counts = (pair[chosen].sum(axis=0) for chosen in (mine, ~mine))
            p = more_changes(*(int(number) for sums in counts for number in sums))
    return GroupHarm(
        group=name,
        items=int(mine.sum()),
        harm=_ratio(group),
        ci95=bootstrap_ci(own, _ratios, seed),
        others=other,
        error=error,
        p=p,
        extras={label: _ratio(sums[mine]) for label, sums in items.extras.items()},
        others_items=int((~mine).sum()),
    )


def _by_content(pair: Numbers, place: NDArray[np.int64], count: int) -> Numbers:
    sums = np.zeros((count, 2))
    np.add.at(sums, place, pair)
    return sums


def _ratio(rows: Numbers) -> float:
    return float(_ratios(rows))


def _ratios(rows: Numbers) -> Numbers:
    """Of ``rows [..., n, (harm, weight)]``, ``[...]``."""
    sums = rows.sum(axis=-2)
    return np.asarray(sums[..., 0] / sums[..., 1])
