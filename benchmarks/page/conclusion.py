"""The verdict: what compression cost and what it bought, in plain sentences that say only what was measured.

Speed is called faster or slower only from an interleaved comparison (``compare`` of a latency line). Lines of
separate runs are set side by side with their numbers, and the sentence says that the runs were separate.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..records import numerals
from ..records.record import Measurement
from .columns import ENERGY
from .headline import LOSS, headline, loss_of, speed
from .join import ASPECT_NAMES, ResultGroup, ResultRow, aspect_of

SPEED = {
    "decoder": ("decode_tps", "in decoding", "tokens/s"),
    "encoder": ("sentences_per_second", "in sentences per second", "sentences/s"),
    "classifier": ("sentences_per_second", "in texts per second", "texts/s"),
}
AGREE = {
    "decoder": ("perplexity", "perplexity"),
    "encoder": ("retrieval_at_1", "R@1 of passages"),
    "classifier": ("label_accuracy", "accuracy"),
}


@dataclass(frozen=True)
class HeadlineNumber:
    """One large number and the words under it."""

    number: str
    caption: str


def sentences(group: ResultGroup) -> list[str]:
    """Up to four sentences: the headline version, the ends of the range, and what must not be trusted."""
    row = headline(group)
    if row is None:
        return ["Only the original was measured: there is no compressed version to judge.", *_doubts(group)]
    opening = "At the bend of the Pareto front, " if _is_bend(group, row) else ""
    found = [_lead(group, row, opening), _ends(group, row)]
    return [*filter(None, found), *_doubts(group)]


def _is_bend(group: ResultGroup, row: ResultRow) -> bool:
    losses = [loss for other in group.compressed if (loss := loss_of(other)) is not None]
    own = loss_of(row)
    return own is not None and len(losses) > 2 and own != min(losses)


def _lead(group: ResultGroup, row: ResultRow, opening: str) -> str:
    gains = [part for part in (_smaller(group, row), _faster(row)) if part]
    against = "the original" if group.reference is None else f"the original ({group.reference.scheme})"
    said = f"is {' and '.join(gains)} than {against}" if gains else "was measured"
    costs = _costs(group, row) or "what it cost in accuracy was not measured"
    return f"{opening}{row.subject.scheme} {said}; {costs}."


def _smaller(group: ResultGroup, row: ResultRow) -> str:
    ratio = group.ratio(row)
    if ratio is None:
        return ""
    return f"{numerals.times(ratio)} smaller" if ratio >= 1 else f"{numerals.times(1 / ratio)} larger"


def _faster(row: ResultRow) -> str:
    found = speed(row)
    if found is None:
        return ""
    where = SPEED[row.subject.kind][1]
    if found.verdict == "same":
        return f"no faster and no slower {where}"
    number = numerals.times(max(found.ratio, 1 / found.ratio))
    return f"{number} {found.verdict} {where}"


def _costs(group: ResultGroup, row: ResultRow) -> str:
    loss = LOSS[row.subject.kind]
    lost = row.usable(loss.metric)
    parts = [] if lost is None else [f"{loss.name} {loss_text(row, lost)}"]
    other, title = AGREE[row.subject.kind]
    now, before = row.usable(other), original(group, other)
    if now is not None:
        was = f"{numerals.significant(before)} → " if before is not None else ""
        parts.append(f"{title} {was}{numerals.significant(now)}")
    rate, _, unit = SPEED[row.subject.kind]
    pace, base = row.usable(rate), original(group, rate)
    if pace is not None and speed(row) is None:
        beside = (
            f" (the original, in a separate run: {numerals.significant(base)})" if base is not None else ""
        )
        parts.append(f"{numerals.significant(pace)} {unit}{beside}")
    return ", ".join([*parts, *_energy(group, row)])


def _energy(group: ResultGroup, row: ResultRow) -> list[str]:
    column = ENERGY[row.subject.kind]
    now, before = row.usable(column.key), original(group, column.key)
    if now is None:
        return []
    was = f" (the original: {column.text(before)})" if before is not None else ""
    return [f"{column.text(now)} {column.unit}{was}"]


def original(group: ResultGroup, metric: str) -> float | None:
    """The value of ``metric`` on the original, where it was measured under the same conditions."""
    return next((value for row in group.baselines if (value := row.usable(metric)) is not None), None)


def loss_text(row: ResultRow, loss: float) -> str:
    """The KL or cosine of a row with the digits it carries."""
    return numerals.fixed(loss, LOSS[row.subject.kind].digits)


def _ends(group: ResultGroup, lead: ResultRow) -> str:
    """Which version lies closest to the original and which is the smallest, unless the lead already is."""
    measured = [(loss, row) for row in group.compressed if (loss := loss_of(row)) is not None]
    if len(measured) < 2:
        return ""
    closest = min(measured, key=lambda pair: pair[0])[1]
    smallest = min(measured, key=lambda pair: pair[1].subject.disk_bytes)[1]
    parts = []
    if closest is not lead:
        parts.append(f"closest to the original is {_brief(group, closest)}")
    if smallest is not lead:
        parts.append(f"the smallest is {_brief(group, smallest)}")
    text = " and ".join(parts)
    return f"Of the {len(measured)} compressed versions, {text}." if text else ""


def _brief(group: ResultGroup, row: ResultRow) -> str:
    loss = LOSS[row.subject.kind]
    lost = row.usable(loss.metric)
    value = "" if lost is None else f"{loss.name} {loss_text(row, lost)}"
    facts = ", ".join(part for part in (_smaller(group, row), value) if part)
    return f"{row.subject.scheme} ({facts})" if facts else row.subject.scheme


def _doubts(group: ResultGroup) -> list[str]:
    """One sentence for the invalid lines, with their reasons, and one for the suspect ones."""
    found = []
    invalid = [
        f"the {ASPECT_NAMES[aspect_of(line)]} of {_called(row)} "
        f"({'; '.join(line.validity.reasons) or 'no reason was recorded'})"
        for row, line in _lines(group, "invalid")
    ]
    if invalid:
        found.append(f"Not to be used: {', '.join(invalid)}.")
    for aspect, name in ASPECT_NAMES.items():
        suspect = [_called(row) for row, line in _lines(group, "suspect") if aspect_of(line) == aspect]
        if suspect:
            found.append(f"Noisy: the {name} of {_listed(suspect)}, as noted under the table.")
    return found


def _lines(group: ResultGroup, status: str) -> list[tuple[ResultRow, Measurement]]:
    return [(row, line) for row in group.rows for line in row.lines if line.validity.status == status]


def _called(row: ResultRow) -> str:
    return "the original" if row.is_baseline else row.subject.scheme


def _listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    unique = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(unique[:-1]), unique[-1]]))


def figures(group: ResultGroup) -> list[HeadlineNumber]:
    """The headline row's few large numbers."""
    row = headline(group)
    if row is None:
        return []
    found = [_size_figure(group, row), _speed_figure(row), _loss_figure(row), _agreement_figure(group, row)]
    return [figure for figure in found if figure is not None]


def _size_figure(group: ResultGroup, row: ResultRow) -> HeadlineNumber | None:
    ratio = group.ratio(row)
    if ratio is None:
        return None
    word = "smaller" if ratio >= 1 else "larger"
    caption = f"{word}, {numerals.megabytes(row.subject.disk_bytes)} MB on disk"
    return HeadlineNumber(numerals.times(max(ratio, 1 / ratio)), caption)


def _speed_figure(row: ResultRow) -> HeadlineNumber | None:
    rate, _, unit = SPEED[row.subject.kind]
    pace, compared = row.usable(rate), speed(row)
    if pace is None:
        return None
    if compared is None:
        return HeadlineNumber(numerals.significant(pace), unit)
    number = numerals.times(max(compared.ratio, 1 / compared.ratio))
    word = "the speed" if compared.verdict == "same" else compared.verdict
    return HeadlineNumber(number, f"{word}, {numerals.significant(pace)} {unit}")


def _loss_figure(row: ResultRow) -> HeadlineNumber | None:
    loss = LOSS[row.subject.kind]
    lost = row.usable(loss.metric)
    return None if lost is None else HeadlineNumber(loss_text(row, lost), f"{loss.name} to the original")


def _agreement_figure(group: ResultGroup, row: ResultRow) -> HeadlineNumber | None:
    metric, title = AGREE[row.subject.kind]
    now, before = row.usable(metric), original(group, metric)
    if now is None:
        return None
    was = f", was {numerals.significant(before)}" if before is not None else ""
    return HeadlineNumber(numerals.significant(now), f"{title}{was}")
