"""Targets of a table as sentences below it: the value, the bound, met or missed."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .cells import Known, KnownRows, described
from .schema import Bound


def verdicts(rows: KnownRows) -> list[str]:
    """A sentence for every target and row that it is about, where both were measured."""
    found = []
    for target in rows.shop.table.targets:
        for known in rows.known:
            if fnmatchcase(known.row.name, target.row):
                found += [sentence for sentence in (_sentence(rows, known, target),) if sentence]
    return found


def _sentence(rows: KnownRows, known: Known, target: Bound) -> str:
    other = target.over or target.minus
    mine, theirs = known.metric(target.metric), _reference(rows, known, target.metric, other)
    if mine is None or (other and not theirs):
        return ""
    value, what = mine, target.metric
    if target.over and theirs:
        value, what = mine / theirs, f"{what} over {target.over}'s"
    elif target.minus and theirs is not None:
        value, what = mine - theirs, f"{what} minus {target.minus}'s"
    asked: dict[str, bool] = {}
    if target.at_most is not None:
        asked[f"at most {target.at_most:g}"] = value <= target.at_most
    if target.at_least is not None:
        asked[f"at least {target.at_least:g}"] = value >= target.at_least
    if target.within is not None:
        asked[f"within {target.within:g}"] = abs(value) <= target.within
    verdict = "met" if all(asked.values()) else "missed"
    return f"{described(known.row)}: {what} {value:.4f} (target {', '.join(asked)}: {verdict})."


def _reference(rows: KnownRows, known: Known, metric: str, other: str) -> float | None:
    if other != "original":
        return rows.of(other).metric(metric) if other else None
    for _, quality in known.quality:
        if quality is not None and metric in quality.reference:
            return quality.reference[metric]
    return None
