"""``measure_slices``: which slices suit a model, what each of their groups loses, and which loses most.

All tests of all slices are one family: a group is an alarm where its corrected p says so, where it loses more
than is of no concern, and a quarter more than the others do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .... import plugins
from ....errors import InputError, MissingDependency
from ....terminal import Progress, Silent
from ...records.subjects import OpenModel
from .group_harm import LEAST, MORE, GroupHarm, Items, harms
from .items import GroupText, Kind
from .measured_items import classifier_texts, decoder_choices, decoder_texts, encoder_texts, token_bands
from .significance import LEVEL, corrected, one_way, smallest_seen
from .token_damage import TokenDamage, token_damage

PACKAGE = f"{__package__.rpartition('.')[0]}.slices"
ALL = "all"
_Models = tuple[OpenModel, OpenModel, Progress]
_TEXTS = {"decoder": decoder_texts, "encoder": encoder_texts, "classifier": classifier_texts}


@dataclass(frozen=True)
class Given:
    """What slices are taken from: windows of the measured text ``[n, length]`` for a decoder, and the rows of
    a text that have a group."""

    windows: NDArray[np.int64] | None
    rows: Sequence[GroupText]
    seed: int


@dataclass(frozen=True)
class _Measured:
    name: str
    title: str
    tested: bool
    items: Items
    groups: list[GroupHarm]


def chosen_slices(names: Sequence[str]) -> list[str]:
    """The slices that are asked for: all of them for ``all``.

    Raises:
        UnknownName: there is none of a name.
    """
    known = [name.replace("_", "-") for name in plugins.names(PACKAGE)]
    if list(names) == [ALL]:
        return known
    for name in names:
        plugins.load(PACKAGE, name, "slice")
    return list(dict.fromkeys(name.replace("_", "-") for name in names))


def measure_slices(
    subject: OpenModel,
    original: OpenModel,
    names: Sequence[str],
    given: Given,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report of the slices ``names``, as a measurement line holds it.

    Returns:
        ``slices``: of each its groups, or why it was not measured; ``tests``: how many there were;
        ``worst``: the alarm that exceeds the other groups most, or None.

    Raises:
        UnknownName: there is no such slice.
        InputError: one that was named does not suit the model, or has no text.
        MissingDependency: one that was named needs a package.
        GateFailed: logits that are not finite.
    """
    kind: Kind = "classifier" if original.labels else original.kind
    models = (subject, original, progress or Silent())
    read = _reader(given, models)
    measured: list[_Measured] = []
    left: list[dict[str, Any]] = []
    for name in chosen_slices(names):
        file = plugins.load(PACKAGE, name, "slice")
        try:
            items = _items(file, kind, given, read, models)
        except (InputError, MissingDependency) as error:
            if list(names) != [ALL]:
                raise
            left.append({"name": name, "title": file.title, "why": str(error)})
            continue
        measured.append(_Measured(name, file.title, file.tested, items, harms(items, given.seed)))
    return _report(measured, left)


def _items(
    file: Any, kind: Kind, given: Given, read: Callable[[], list[TokenDamage]], models: _Models
) -> Items:
    subject, original, progress = models
    if kind not in file.kinds:
        raise InputError(f"this slice is not for a model of kind {kind!r}", fix="leave it out")
    if file.of == "tokens":
        return token_bands(file, read(), original.tokenizer)
    if file.of == "choices":
        choices = file.choices(given.seed)
        with progress.task(f"comparing sentences by {file.title}", len(choices)) as task:
            return decoder_choices(subject, original, choices, task)
    texts = file.texts(given.seed) if file.of == "texts" else given.rows
    if not texts:
        raise InputError(
            "no row of the text has a group", fix='give --text a .jsonl file whose rows have a "group"'
        )
    with progress.task(f"reading texts by {file.title}", len(texts)) as task:
        return _TEXTS[kind](subject, original, texts, task)


def _reader(given: Given, models: _Models) -> Callable[[], list[TokenDamage]]:
    """What reads the windows, once for all slices of their tokens."""
    subject, original, progress = models
    found: list[TokenDamage] = []

    def read() -> list[TokenDamage]:
        if given.windows is None:
            raise InputError("this slice needs windows of text")
        if not found:
            with progress.task("reading the text for slices", len(given.windows)) as task:
                for number, window in enumerate(given.windows, 1):
                    found.append(token_damage(subject, original, window, number))
                    task.advance(1)
        return found

    return read


def _report(measured: Sequence[_Measured], left: list[dict[str, Any]]) -> dict[str, Any]:
    tested = [group for one in measured if one.tested for group in one.groups]
    ps = dict(zip(map(id, tested), corrected([group.p for group in tested]), strict=True))
    slices: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    for one in measured:
        groups = [_told(group, one.items.unit, ps.get(id(group)), len(tested)) for group in one.groups]
        slices.append(
            {
                "name": one.name,
                "title": one.title,
                "unit": one.items.unit,
                "items": len(one.items.groups),
                "groups": groups,
            }
        )
        alarms += [
            {"slice": one.name, **{key: group[key] for key in ("group", "harm", "others")}}
            for group in groups
            if group["alarm"]
        ]
    worst = max(alarms, key=lambda alarm: alarm["harm"] / max(alarm["others"], 1e-12), default=None)
    return {"slices": slices + left, "tests": len(tested), "worst": worst}


def _told(group: GroupHarm, unit: str, p: float | None, tests: int) -> dict[str, Any]:
    """A group as the line holds it; ``p`` is corrected, None where the group is not tested."""
    others = 0.0 if math.isnan(group.others) else group.others
    alarm = p is not None and p < LEVEL and group.harm >= LEAST[unit] and group.harm >= MORE * others
    told: dict[str, Any] = {
        "group": group.group,
        "items": group.items,
        "harm": group.harm,
        "ci95": group.ci95 and list(group.ci95),
        "others": None if math.isnan(group.others) else group.others,
        "p": p,
        "smallest_seen": others + smallest_seen(group.error, tests) if math.isfinite(group.error) else None,
        "alarm": alarm,
        **group.extras,
    }
    if "first_before" in group.extras:
        changed = round(group.harm * group.items)
        net = round((group.extras["first_after"] - group.extras["first_before"]) * group.items)
        told["p_one_way"] = one_way((changed + net) // 2, (changed - net) // 2)
    return told


def most_flips(report: dict[str, Any]) -> tuple[dict[str, Any], float] | None:
    """The tested group that changed most of its answers, and their share; None where none are counted."""
    found = [
        (group, float(group["harm"] if one["unit"] == "changed" else group["flips"]))
        for one in report["slices"]
        for group in one.get("groups", [])
        if group["p"] is not None and (one["unit"] == "changed" or "flips" in group)
    ]
    return max(found, key=lambda pair: pair[1], default=None)
