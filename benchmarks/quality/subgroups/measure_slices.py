"""``measure_slices``: which slices suit a model, what each of their groups loses, and which loses most.

All tests of all slices are one family: a group is an alarm where its corrected p says so, where it loses more
than is of no concern, and a quarter more than the others do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .... import plugins
from ....errors import InputError, MissingDependency
from ....terminal.progress import Progress, Silent
from ...records.subjects import OpenModel
from .group_harm import LEAST, MORE, GroupHarm, harms
from .items import PACKAGE, SUFFIX, Kind, load_slice
from .kept_rows import KeptRows
from .measured_items import by_confidence
from .significance import LEVEL, corrected, one_way, smallest_seen, smallest_share_seen
from .slice_run import Given, SliceRun

ALL = "all"
FLIPS = "group_flips"  # the metric that has the share of :func:`most_flips`


@dataclass(frozen=True)
class Measured:
    name: str
    title: str
    tested: bool
    unit: str
    groups: list[GroupHarm]


def chosen_slices(names: Sequence[str]) -> list[str]:
    """The slices that are asked for: all packaged ones for ``all``, and files of the user's."""
    known = [name.replace("_", "-") for name in plugins.names(PACKAGE)]
    found: list[str] = []
    for name in names:
        if name != ALL:
            load_slice(name)
        found += known if name == ALL else [_plain(name)]
    return list(dict.fromkeys(found))


def _plain(name: str) -> str:
    """A packaged slice as it is called everywhere; a file as it is."""
    return name if name.endswith(SUFFIX) else name.replace("_", "-")


def measure_slices(
    subject: OpenModel,
    original: OpenModel,
    names: Sequence[str],
    given: Given,
    kept: KeptRows | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report of the slices ``names``, as a measurement line holds it. What is in ``kept`` is not
    measured again.

    Returns:
        ``slices``: of each its groups, or why it was not measured; ``tests``: how many there were;
        ``worst``: the alarm that is the most ``times`` what others lose, or None.
    """
    kind: Kind = "classifier" if original.labels else original.kind
    run = SliceRun(subject, original, kept or KeptRows(), progress or Silent())
    measured: list[Measured] = []
    left: list[dict[str, Any]] = []
    asked = set(map(_plain, names))
    for name in chosen_slices(names):
        file = load_slice(name)
        try:
            unit, groups = run.harms(name, file, kind, given)
        except (InputError, MissingDependency) as error:
            if name in asked:
                raise
            left.append({"name": name, "title": file.title, "why": str(error)})
            continue
        measured.append(Measured(name, file.title, file.tested, unit, groups))
    if run.choices:
        sure = by_confidence(run.choices)
        measured.append(
            Measured("choices", "confidence of the choice", False, sure.unit, harms(sure, given.seed))
        )
    return report(measured, left)


def report(measured: Sequence[Measured], left: list[dict[str, Any]]) -> dict[str, Any]:
    tested = [group for one in measured if one.tested for group in one.groups]
    ps = dict(zip(map(id, tested), corrected([group.p for group in tested]), strict=True))
    ways = {id(group): _one_way(group) for group in tested if "first_before" in group.extras}
    ways = dict(zip(ways, corrected(list(ways.values())), strict=True))
    slices: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    for one in measured:
        groups = [_described(group, one.unit, ps.get(id(group)), len(tested)) for group in one.groups]
        for group, described in zip(one.groups, groups, strict=True):
            described |= {"p_one_way": ways[id(group)]} if id(group) in ways else {}
        slices.append(
            {
                "name": one.name,
                "title": one.title,
                "unit": one.unit,
                "items": sum(group.items for group in one.groups),
                "groups": groups,
            }
        )
        alarms += [
            {"slice": one.name, **{key: group[key] for key in ("group", "harm", "others", "times")}}
            for group in groups
            if group["alarm"]
        ]
    worst = max(alarms, key=lambda alarm: alarm["times"], default=None)
    return {"slices": slices + left, "tests": len(tested), "worst": worst}


def _described(group: GroupHarm, unit: str, p: float | None, tests: int) -> dict[str, Any]:
    """A group as the line holds it; ``p`` is corrected, None where the group is not tested."""
    others = 0.0 if math.isnan(group.others) else group.others
    alarm = p is not None and p < LEVEL and group.harm >= LEAST[unit] and group.harm >= MORE * others
    return {
        "group": group.group,
        "items": group.items,
        "harm": group.harm,
        "ci95": group.ci95 and list(group.ci95),
        "others": None if math.isnan(group.others) else group.others,
        "p": p,
        "smallest_seen": _smallest_seen(group, unit, tests),
        "alarm": alarm,
        "times": _times(group, unit),
        **group.extras,
    }


def _smallest_seen(group: GroupHarm, unit: str, tests: int) -> float | None:
    """The harm that the test finds four times in five; None where that is unknown, or no harm is enough."""
    if unit == "changed":
        changed = round(group.others * group.others_items) if group.others_items else 0
        return smallest_share_seen(group.items, changed, group.others_items, tests)
    difference = smallest_seen(group.error, tests)
    return None if difference is None else difference + (0.0 if math.isnan(group.others) else group.others)


def _one_way(group: GroupHarm) -> float:
    """The sign test of the answers that changed: do they go one way? Not yet corrected."""
    changed = round(group.harm * group.items)
    net = round((group.extras["first_after"] - group.extras["first_before"]) * group.items)
    return one_way((changed + net) // 2, (changed - net) // 2)


def _times(group: GroupHarm, unit: str) -> float:
    """How many times the harm of the others a group has, what is of no concern counted as that much; of an
    association how many times its effect before.
    """
    if not math.isnan(group.others):
        return group.harm / max(group.others, LEAST[unit])
    return 1 + group.harm / max(abs(group.extras.get("effect_before", 0.0)), LEAST[unit])


def largest_kl(report: dict[str, Any], name: str) -> float:
    """KL a token of the group of the slice ``name`` that has most, of a decoder."""
    one = next(one for one in report["slices"] if one["name"] == name)
    return max(float(group.get("kl_per_token", group["harm"])) for group in one["groups"])


def most_flips(report: dict[str, Any]) -> tuple[dict[str, Any], float] | None:
    """The tested group that changed most of its answers, and their share; None where none are counted."""
    found = [
        (group, float(group["harm"] if one["unit"] == "changed" else group["flips"]))
        for one in report["slices"]
        for group in one.get("groups", [])
        if group["p"] is not None and (one["unit"] == "changed" or "flips" in group)
    ]
    return max(found, key=lambda pair: pair[1], default=None)
