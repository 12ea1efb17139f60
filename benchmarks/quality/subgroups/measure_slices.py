"""``measure_slices``: which slices suit a model, what each of their groups loses, and which loses most.

All tests of all slices are one family: a group is an alarm where its corrected p says so, where it loses more
than is of no concern, and a quarter more than the others do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .... import plugins
from ....errors import InputError, MissingDependency
from ....terminal import Progress, ProgressTask, Silent
from ...records.subjects import OpenModel
from ..token_damage import TokenDamage
from .associations import association_harms
from .group_harm import LEAST, MORE, GroupHarm, Items, harms
from .items import (
    PACKAGE,
    Choice,
    ChoiceSlice,
    GroupText,
    Kind,
    RowSlice,
    SliceFile,
    TextSlice,
    TokenSlice,
    load_slice,
)
from .kept_rows import KeptRows
from .measured_items import (
    Run,
    by_confidence,
    classifier_texts,
    decoder_choices,
    decoder_texts,
    encoder_texts,
    token_bands,
)
from .significance import LEVEL, corrected, one_way, smallest_seen, smallest_share_seen
from .user_slice import SUFFIX

ALL = "all"
Item = TypeVar("Item", GroupText, Choice)
_TEXTS = {"decoder": decoder_texts, "encoder": encoder_texts, "classifier": classifier_texts}


@dataclass(frozen=True)
class Given:
    """What slices are taken from: what the tokens of a decoder's windows of the measured text lost, and the
    rows of a text that have a group. ``every``: of texts that groups share, articles say, one in so many.
    ``half``: of what items share, articles or sentences, only those at even (0) or odd (1) places."""

    tokens: Sequence[TokenDamage] = ()
    rows: Sequence[GroupText] = ()
    seed: int = 0
    every: int = 1
    half: int | None = None


@dataclass(frozen=True)
class Measured:
    name: str
    title: str
    tested: bool
    unit: str
    groups: list[GroupHarm]


def chosen_slices(names: Sequence[str]) -> list[str]:
    """The slices that are asked for: all packaged ones for ``all``, and files of the user's.

    Raises:
        UnknownName: there is none of a name.
        InputError: a file that is no slice.
    """
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

    Raises:
        UnknownName: there is no such slice.
        InputError: one that was named does not suit the model, or has no text.
        MissingDependency: one that was named needs a package.
        GateFailed: logits that are not finite.
    """
    kind: Kind = "classifier" if original.labels else original.kind
    session = _Session(subject, original, kept or KeptRows(), progress or Silent())
    measured: list[Measured] = []
    left: list[dict[str, Any]] = []
    asked = set(map(_plain, names))
    for name in chosen_slices(names):
        file = load_slice(name)
        try:
            unit, groups = session.harms(name, file, kind, given)
        except (InputError, MissingDependency) as error:
            if name in asked:
                raise
            left.append({"name": name, "title": file.title, "why": str(error)})
            continue
        measured.append(Measured(name, file.title, file.tested, unit, groups))
    if session.choices:
        sure = by_confidence(session.choices)
        measured.append(
            Measured("choices", "confidence of the choice", False, sure.unit, harms(sure, given.seed))
        )
    return report(measured, left)


@dataclass(frozen=True)
class _Session:
    """Both models, where what is measured is kept and shown, and the ``choices`` of all slices that have
    some."""

    subject: OpenModel
    original: OpenModel
    kept: KeptRows
    progress: Progress
    choices: list[Items] = field(default_factory=list)

    def harms(self, name: str, file: SliceFile, kind: Kind, given: Given) -> tuple[str, list[GroupHarm]]:
        """What each group of the slice ``name`` loses of a model of ``kind``, and the unit of that."""
        if kind not in file.kinds:
            raise InputError(f"this slice is not for a model of kind {kind!r}", fix="leave it out")
        if file.of == "associations":
            tests = file.associations()
            with self.progress.task("comparing associations", len(tests)) as task:
                found = association_harms(self.subject, self.original, tests, given.seed, task)
            return "effect", found
        items = self._items(name, file, kind, given)
        return items.unit, harms(items, given.seed)

    def _items(
        self, name: str, file: TextSlice | ChoiceSlice | TokenSlice | RowSlice, kind: Kind, given: Given
    ) -> Items:
        if file.of == "tokens":
            if not given.tokens:
                raise InputError("this slice needs windows of text, read by both models in the same tokens")
            return token_bands(file, given.tokens, self.original.tokenizer)
        if file.of == "choices":
            choices = _part(file.choices(given.seed), 1, given.half)
            with self.progress.task(f"comparing sentences by {file.title}", len(choices)) as task:
                self.choices.append(decoder_choices(self._run(name, choices, task), choices))
            return self.choices[-1]
        texts = file.texts(given.seed) if file.of == "texts" else given.rows
        if not texts:
            raise InputError(
                "no row of the text has a group", fix='give --text a .jsonl file whose rows have a "group"'
            )
        texts = _part(texts, given.every if file.of == "texts" else 1, given.half)
        with self.progress.task(f"reading texts by {file.title}", len(texts)) as task:
            return _TEXTS[kind](self._run(name, texts, task), texts)

    def _run(self, name: str, items: Sequence[object], task: ProgressTask) -> Run:
        return Run(self.subject, self.original, self.kept.of(name, items), task)


def _part(items: Sequence[Item], every: int, half: int | None) -> Sequence[Item]:
    """The items of one content in ``every``, and of these of one ``half``."""
    chosen = list(dict.fromkeys(one.content for one in items))[::every]
    kept = set(chosen if half is None else chosen[half::2])
    return [one for one in items if one.content in kept]


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
