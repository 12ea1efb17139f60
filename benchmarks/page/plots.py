"""What the report plots: accuracy against size and accuracy against speed, each with its Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from . import headline, svg
from . import results_table as table
from .device_table import device_names, views
from .predicted import PredictedDevice, labelled
from .result_groups import OF_IMAGES, ResultGroup, ResultRow

SIZES = ({"width": 540.0, "height": 360.0}, {"width": 350.0, "height": 330.0})
MOST = 16  # labels beyond this many cannot be distinguished
NO_LOSS = 1e-4  # rounding of the runtime, not damage: drawn as zero, at the lower end of the axis


@dataclass(frozen=True)
class Measure:
    """A quantity as an axis. ``metric`` is None for the size on disk; ``loss`` says how one is read."""

    metric: str | None
    title: str
    higher: bool = False
    loss: headline.Loss | None = None

    def of(self, row: ResultRow) -> float | None:
        """The value of a row in the units of the axis, whatever its validity."""
        if self.metric is None:
            return row.subject.disk_bytes / 1e6
        reading = row.reading(self.metric)
        if reading is None or reading.value is None:
            return None
        if self.loss is None:
            return reading.value
        lost = self.loss.of(reading.value)
        return lost if lost >= NO_LOSS else 0.0

    def status(self, row: ResultRow) -> str:
        """The validity of the line that the value stands on."""
        reading = None if self.metric is None else row.reading(self.metric)
        return "valid" if reading is None else reading.status


SIZE = Measure(None, "shipped, MB")
LOSS = {
    kind: Measure(
        loss.metric,
        f"1 − {loss.name} to the original" if loss.nearness else f"{loss.name} to the original, nats",
        loss=loss,
    )
    for kind, loss in headline.LOSS.items()
}
SPEED = {
    "decoder": Measure("decode_tps", "decoding, tokens per second", higher=True),
    "encoder": Measure("sentences_per_second", "sentences per second", higher=True),
    "classifier": Measure("sentences_per_second", "texts per second", higher=True),
    **dict.fromkeys(
        (f"encoder{OF_IMAGES}", f"classifier{OF_IMAGES}"),
        Measure("images_per_second", "images per second", higher=True),
    ),
}


def plots(group: ResultGroup, prefix: str) -> list[svg.Figure]:
    """Accuracy against size, and against speed on each device; of these what there are numbers for.
    ``prefix`` makes identifiers unique in the page.
    """
    several = len(device_names(group)) > 1
    wanted = [(group, SIZE, "size")] + [
        (view, SPEED[group.shown], f"speed on {name}" if several else "speed")
        for view, name in zip(views(group), device_names(group), strict=True)
    ]
    return [
        _plot(view, f"{prefix}-{number}", x, LOSS[group.kind], name)
        for number, (view, x, name) in enumerate(wanted)
        if len(_points(view, x, LOSS[group.kind])) >= 2
    ]


def _points(group: ResultGroup, x: Measure, y: Measure) -> list[tuple[ResultRow, str, float, float]]:
    """The rows that have both numbers, with their labels; one row stands for all copies of the original."""
    found = []
    for row, label in zip(group.rows, table.short_labels(group), strict=True):
        across, up = x.of(row), y.of(row)
        if across is not None and up is not None and across > 0:
            found.append((row, label, across, up))
    copies = [entry for entry in found if entry[0].is_baseline][1:]
    return [entry for entry in found if entry not in copies][:MOST]


def _plot(group: ResultGroup, identifier: str, x: Measure, y: Measure, name: str) -> svg.Figure:
    entries = _points(group, x, y)
    valid = [i for i, (row, *_) in enumerate(entries) if "invalid" not in (x.status(row), y.status(row))]
    points = [((-1 if x.higher else 1) * entries[i][2], entries[i][3]) for i in valid]
    front = [valid[i] for i in headline.pareto_front(points)]
    drawn = [
        svg.Point(across, up, _marked(label, x, y, row), _kind(row, x, y, index in front))
        for index, (row, label, across, up) in enumerate(entries)
    ]
    title = f"Accuracy against {name}"
    on_front = ", ".join(entries[i][1] for i in front) or "none"
    description = f"{y.title} against {x.title} of {len(drawn)} versions. On the Pareto front: {on_front}."
    draw = partial(
        svg.scatter,
        points=drawn,
        x=svg.Scale(x.title, log=True),
        y=svg.Scale(y.title, log=True),
        title=title,
        description=description,
        front=front,
        steps="up" if x.higher else "across",
    )
    left = len(group.compressed) - sum(not row.is_baseline for row, *_ in entries)
    caption = f"Not drawn: {left} of {len(group.compressed)} versions." if left else ""
    return svg.Figure.of(title, identifier, draw, caption, SIZES)


def _kind(row: ResultRow, x: Measure, y: Measure, on_front: bool) -> svg.Kind:
    statuses = {x.status(row), y.status(row)}
    if "invalid" in statuses:
        return "doubtful"
    if "suspect" in statuses:
        return "suspect"
    return "baseline" if row.is_baseline else "front" if on_front else "plain"


def _marked(label: str, x: Measure, y: Measure, row: ResultRow) -> str:
    marks = [table.MARKS[status] for status in (x.status(row), y.status(row)) if status != "valid"]
    return f"{label} {marks[0]}" if marks else label


def predicted_plots(
    group: ResultGroup, predicted: Sequence[PredictedDevice], prefix: str
) -> list[svg.Figure]:
    """Accuracy, measured, against the speed that is predicted on each device: hollow points with bands."""
    found = []
    for number, device in enumerate(predicted):
        points = _expected_points(group, device, LOSS[group.kind])
        if points:
            x, y = SPEED[group.shown], LOSS[group.kind]
            description = f"{y.title} against predicted {x.title} of {len(points)} versions, with bands."
            title = f"Accuracy against predicted speed on {device.name}"
            draw = partial(
                svg.scatter,
                points=points,
                x=svg.Scale(f"predicted {x.title}", log=True),
                y=svg.Scale(y.title, log=True),
                title=title,
                description=description,
            )
            found.append(svg.Figure.of(title, f"{prefix}-p{number}", draw, "", SIZES))
    return found


def _expected_points(group: ResultGroup, device: PredictedDevice, y: Measure) -> list[svg.Point]:
    found, metric = [], SPEED[group.shown].metric or ""
    for row, (identity, label) in zip(group.rows, labelled(group), strict=True):
        speed, up = device.quantity(identity, metric), y.of(row)
        if speed is None or not speed.value or up is None or y.status(row) == "invalid":
            continue
        low = max(speed.low or 0.0, speed.value / 10)
        band = (low, speed.high if speed.high and math.isfinite(speed.high) else speed.value)
        found.append(svg.Point(speed.value, up, label, "predicted", band))
    return found
