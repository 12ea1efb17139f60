"""What a study asked for beside what was measured: a target of a table is met or missed."""

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
    mine, theirs = _figure(rows, known, target.metric), _reference(rows, known, target.metric, other)
    if mine is None or (other and not theirs):
        return ""
    value, what, interval = mine, target.metric, None
    if target.over and theirs:
        value, what = mine / theirs, f"{what} over {target.over}'s"
        beside = None if target.over == "original" else rows.of(target.over)
        ratio = known.over(beside, target.metric) if beside else None
        interval = ratio.interval if ratio else None
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
    around = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
    return f"{described(known.row)}: {what} {value:.4f}{around} (target {', '.join(asked)}: {verdict})."


def _figure(rows: KnownRows, known: Known, name: str) -> float | None:
    """A metric of a row, or what making it cost."""
    found = known.metric(name)
    return rows.shop.cost(known.row).get(name) if found is None else found


def _reference(rows: KnownRows, known: Known, metric: str, other: str) -> float | None:
    if other != "original":
        beside = rows.of(other) if other else None
        return _figure(rows, beside, metric) if beside else None
    for _, quality in known.quality:
        if quality is not None and metric in quality.reference:
            return quality.reference[metric]
    return None
