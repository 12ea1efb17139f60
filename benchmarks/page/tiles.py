"""The few large numbers beside the verdict, each with its interval, and with a mark where it is noisy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..records import conditions
from ..records.conditions import clip
from .conclusion import AGREE, SPEED, column, loss_text, original, signed_percent
from .headline import LOSS, headline, speed
from .result_groups import OF_IMAGES, RSS, MetricReading, ResultGroup, ResultRow
from .slice_chart import worst_group

# The other speed, whose comparison stands beside the main one's.
SECOND = {
    "decoder": ("prefill_tps", "in reading prompts", "tokens/s"),
    "encoder": ("latency_ms", "with one sentence alone", "ms"),
    "classifier": ("latency_ms", "with one text alone", "ms"),
    **dict.fromkeys(
        (f"encoder{OF_IMAGES}", f"classifier{OF_IMAGES}"), ("latency_ms", "with one image alone", "ms")
    ),
}


@dataclass(frozen=True)
class Tile:
    """One large number and the words under it; ``doubt`` says why it is noisy, empty where it is not."""

    number: str
    caption: str
    interval: str = ""
    doubt: str = ""


def tiles(group: ResultGroup) -> list[Tile]:
    """Of the headline row: size, both speeds, what accuracy it cost, and memory."""
    row = headline(group)
    if row is None:
        return []
    found = [
        _size(group, row),
        _main_speed(group, row),
        _second_speed(group, row),
        _agreement(group, row),
        _loss(row),
        _memory(group, row),
        _worst_group(row),
    ]
    return [tile for tile in found if tile is not None]


def _worst_group(row: ResultRow) -> Tile | None:
    """Whom the version harms most, where slices were measured and found one."""
    found = worst_group(row)
    if found is None:
        return None
    title, group = found
    return Tile(conditions.times(group.times), f"{group.beside}: {clip(group.name, 40)} ({title})")


def _size(group: ResultGroup, row: ResultRow) -> Tile | None:
    ratio = group.ratio(row)
    if ratio is None or group.reference is None:
        return None
    word = "smaller" if ratio >= 1 else "larger"
    shipped, before = (conditions.megabytes(one.disk_bytes) for one in (row.subject, group.reference))
    return Tile(conditions.times(max(ratio, 1 / ratio)), f"{word}: {shipped} MB shipped, was {before}")


def _main_speed(group: ResultGroup, row: ResultRow) -> Tile | None:
    rate, where, unit = SPEED[row.shown]
    reading, compared = row.reading(rate), speed(row)
    if reading is None or reading.value is None or reading.status == "invalid":
        return None
    pace = f"{conditions.significant(reading.value)} {unit}"
    if compared is None:
        return Tile(conditions.significant(reading.value), unit, "", reading.doubt)
    base = original(group, rate)
    was = f", was {conditions.significant(base)}" if base is not None else ""
    text, doubt = f" {where}, {pace}{was}", group.doubt(row, rate)
    return _compared(compared.ratio, compared.interval, compared.verdict, text, doubt)


def _second_speed(group: ResultGroup, row: ResultRow) -> Tile | None:
    metric, where, unit = SECOND[row.shown]
    reading, line = row.reading(metric), row.line("latency")
    every = (line.compare or {}).get("by_metric") if line is not None else None
    found = every.get(metric) if isinstance(every, Mapping) else None
    if reading is None or reading.value is None or reading.status == "invalid" or not _is_verdict(found):
        return None
    assert found is not None
    text = f" {where}, {conditions.significant(reading.value)} {unit}"
    ends = found.get("ci95")
    return _compared(found["ratio_median"], ends, found["verdict"], text, group.doubt(row, metric))


def _is_verdict(found: Any) -> bool:
    """Whether a comparison says something: ``faster``, ``slower`` or ``same``, with a ratio."""
    if not isinstance(found, Mapping) or found.get("verdict") not in ("faster", "slower", "same"):
        return False
    ratio, ends = found.get("ratio_median"), found.get("ci95")
    numbers = [ratio, *(ends if isinstance(ends, list | tuple) and len(ends) == 2 else [None])]
    return all(isinstance(number, int | float) and number > 0 for number in numbers)


def _compared(ratio: float, ends: Any, verdict: str, text: str, doubt: str) -> Tile:
    """A ratio above 1, with its interval turned likewise."""
    turned = ratio < 1
    word = "the speed" if verdict == "same" else verdict
    between = sorted(1 / end if turned else end for end in ends) if ends else []
    interval = "–".join(conditions.times(end) for end in between)
    return Tile(conditions.times(1 / ratio if turned else ratio), f"{word}{text}", interval, doubt)


def _agreement(group: ResultGroup, row: ResultRow) -> Tile | None:
    metric, title = AGREE[row.subject.kind]
    reading, before = row.reading(metric), original(group, metric)
    if reading is None or reading.value is None or reading.status == "invalid":
        return None
    shown = column(group, metric)
    now = f"{shown.text(reading.value)} {shown.unit}".strip()
    if before is None:
        return Tile(now, title, "", reading.doubt)
    if row.subject.kind == "decoder" and before > 0:
        ends = _difference(reading, metric)
        between = " to ".join(signed_percent(end / before) for end in ends)
        change = signed_percent(reading.value / before - 1)
        return Tile(change, f"{title}: {now}, was {shown.text(before)}", between, reading.doubt)
    return Tile(now, f"{title}, was {shown.text(before)}", "", reading.doubt)


def _difference(reading: MetricReading, metric: str) -> tuple[float, ...]:
    """The interval of the paired difference from the original; empty where there is none."""
    found = (reading.line.compare or {}).get("delta")
    one = found.get(metric) if isinstance(found, Mapping) else None
    ends = one.get("ci95") if isinstance(one, Mapping) else None
    known = isinstance(ends, list | tuple) and all(isinstance(end, int | float) for end in ends)
    return tuple(ends) if known and ends is not None else ()


def _loss(row: ResultRow) -> Tile | None:
    loss = LOSS[row.subject.kind]
    reading = row.reading(loss.metric)
    if reading is None or reading.value is None or reading.status == "invalid":
        return None
    ends = reading.metric.ci95
    interval = "–".join(loss_text(row, end) for end in ends) if ends else ""
    return Tile(loss_text(row, reading.value), f"{loss.name} to the original", interval, reading.doubt)


def _memory(group: ResultGroup, row: ResultRow) -> Tile | None:
    reading, before = row.reading(RSS.key), original(group, RSS.key)
    if reading is None or reading.value is None or reading.status == "invalid":
        return None
    was = f", was {RSS.text(before)}" if before is not None else ""
    return Tile(f"{RSS.text(reading.value)} MB", f"resident at its peak{was}", "", reading.doubt)
