"""The verdict: what compression bought and what it cost, in plain sentences that say only what was measured.

Speed is called faster or slower only from an interleaved comparison (``compare`` of a latency line). Lines of
separate runs are set side by side with their numbers, and the sentence says that the runs were separate.
"""

from typing import Any

from ..records import conditions
from ..records.conditions import clip, machine
from ..records.record import Measurement
from .headline import LOSS, headline, loss_of, speed, text_lost
from .heat_grid import bits_of
from .result_groups import ASPECT_NAMES, COLUMNS, OF_IMAGES, Column, ResultGroup, ResultRow, aspect_of
from .slice_chart import worst_sentence

SPEED = {
    "decoder": ("decode_tps", "in decoding", "tokens/s"),
    "encoder": ("sentences_per_second", "in sentences per second", "sentences/s"),
    "classifier": ("sentences_per_second", "in texts per second", "texts/s"),
    **dict.fromkeys(
        (f"encoder{OF_IMAGES}", f"classifier{OF_IMAGES}"),
        ("images_per_second", "in images per second", "images/s"),
    ),
}
AGREE = {
    "decoder": ("perplexity", "perplexity"),
    "encoder": ("retrieval_at_1", "R@1 of passages"),
    "classifier": ("label_accuracy", "accuracy"),
}
LONGEST_NAME = 60


def sentences(group: ResultGroup) -> list[str]:
    """The headline version, the ends of the range, and what must not be trusted."""
    row = headline(group)
    if row is None:
        return ["Only the original was measured: there is no compressed version to judge.", *_doubts(group)]
    said = [_lead(group, row), worst_sentence(row), _ends(group, row)]
    return [*filter(None, said), *_lost(group), *_doubts(group)]


def _lead(group: ResultGroup, row: ResultRow) -> str:
    """``4 bits (W4A16-g64 gptq): 5.8× smaller, 4.8× faster in decoding on AMD EPYC, perplexity +16 %.``"""
    gains = [part for part in (_smaller(group, row), _faster(group, row)) if part]
    costs = _cost(group, row) or "what it cost in accuracy was not measured"
    return f"{_called(row)}: {', '.join([*gains, costs])}."


def _called(row: ResultRow) -> str:
    bits = bits_of(row.subject.scheme)
    return row.subject.scheme if bits is None else f"{bits} bits ({row.subject.scheme})"


def _smaller(group: ResultGroup, row: ResultRow) -> str:
    ratio = group.ratio(row)
    if ratio is None:
        return ""
    return f"{conditions.times(ratio)} smaller" if ratio >= 1 else f"{conditions.times(1 / ratio)} larger"


def _faster(group: ResultGroup, row: ResultRow) -> str:
    line, (rate, where, unit) = row.line("latency"), SPEED[row.shown]
    pace = row.usable(rate)
    if line is None or pace is None:
        return ""
    device, found = f"on {clip(machine(line), LONGEST_NAME)}", speed(row)
    noisy = " (noisy)" if group.doubt(row, rate) else ""
    if found is None:
        base = original(group, rate)
        beside = "" if base is None else f" (the original, in a separate run: {conditions.significant(base)})"
        return f"{conditions.significant(pace)} {unit}{beside}{noisy} {device}"
    if found.verdict == "same":
        return f"no faster and no slower {where} {device}{noisy}"
    return f"{conditions.times(max(found.ratio, 1 / found.ratio))} {found.verdict} {where} {device}{noisy}"


def _cost(group: ResultGroup, row: ResultRow) -> str:
    """The change of what people know best; without it the loss."""
    metric, title = AGREE[row.subject.kind]
    now, before = row.usable(metric), original(group, metric)
    if now is None or before is None:
        loss = LOSS[row.subject.kind]
        lost = row.usable(loss.metric)
        return "" if lost is None else f"{loss.name} {loss_text(row, lost)}"
    if row.subject.kind == "decoder" and before > 0:
        return f"{title} {signed_percent(now / before - 1)}"
    # Of fractions both values: per cent of per cent mislead.
    shown = column(group, metric)
    return f"{title} {shown.text(before)} → {shown.text(now)} {shown.unit}"


def signed_percent(change: float) -> str:
    """``+16 %``, ``−3.2 %``: two digits, and what is below a tenth as 0."""
    if abs(change) < 0.0005:
        return "±0 %"
    return f"{'+' if change > 0 else '−'}{conditions.significant(abs(100 * change), 2)} %"


def column(group: ResultGroup, metric: str) -> Column:
    """The column of the results that shows ``metric``."""
    return next(column for column in COLUMNS[group.shown] if column.key == metric)


def original(group: ResultGroup, metric: str) -> float | None:
    """The value of ``metric`` on the original, where it was measured under the same conditions."""
    return next((value for row in group.baselines if (value := row.usable(metric)) is not None), None)


def loss_text(row: ResultRow, loss: float) -> str:
    """The KL or cosine of a row with the digits it carries."""
    return conditions.fixed(loss, LOSS[row.subject.kind].digits)


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


def _lost(group: ResultGroup) -> list[str]:
    """One sentence for the versions whose text is lost."""
    found = [(row, text) for row in group.compressed if (text := text_lost(row)) is not None]
    said = [f"{row.subject.scheme} ({_how_lost(text)})" for row, text in found]
    return [f"The text is lost: {', '.join(said)}."] if said else []


def _how_lost(text: dict[str, Any]) -> str:
    prompts, loops, before = text.get("prompts"), text.get("loops"), text.get("original")
    numbers = [number for number in (prompts, loops, before) if isinstance(number, int | float)]
    if text.get("verdict") != "loops" or len(numbers) < 3:
        return "its replies are not what the original would say"
    count, own, other = numbers
    return f"{own * count:.0f} of {count} replies end in a loop, {other * count:.0f} of the original's"


def _doubts(group: ResultGroup) -> list[str]:
    """One sentence for the invalid lines, with their reasons, and one for the suspect ones."""
    found = []
    invalid = [
        f"the {ASPECT_NAMES[aspect_of(line)]} of {_named(row)} "
        f"({'; '.join(line.validity.reasons) or 'no reason was recorded'})"
        for row, line in _lines(group, "invalid")
    ]
    if invalid:
        found.append(f"Not to be used: {', '.join(invalid)}.")
    for aspect, name in ASPECT_NAMES.items():
        suspect = [_named(row) for row, line in _lines(group, "suspect") if aspect_of(line) == aspect]
        if suspect:
            found.append(f"Noisy: the {name} of {_listed(suspect)}, as noted under the table.")
    return found


def _lines(group: ResultGroup, status: str) -> list[tuple[ResultRow, Measurement]]:
    return [(row, line) for row in group.rows for line in row.lines if line.validity.status == status]


def _named(row: ResultRow) -> str:
    return "the original" if row.is_baseline else row.subject.scheme


def _listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    unique = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(unique[:-1]), unique[-1]]))
