"""The rows of a table, each an artifact with its measurement lines, in groups by the model that it was made
from and by the conditions; :mod:`.join` makes them of lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..records.record import Measurement, Metric, Subject

Aspect = Literal["quality", "latency"]
Status = Literal["valid", "suspect", "invalid"]
ASPECTS: tuple[Aspect, ...] = ("quality", "latency")
ASPECT_NAMES: dict[Aspect, str] = {"quality": "quality", "latency": "latency and memory"}
SEVERITY: dict[Status, int] = {"valid": 0, "suspect": 1, "invalid": 2}
# Of a kind that reads images, in the names of what is shown.
OF_IMAGES = " of images"


@dataclass(frozen=True)
class MetricReading:
    """A metric together with the line it stands on, which says what it is worth."""

    metric: Metric
    line: Measurement

    @property
    def value(self) -> float | None:
        """The number, or None when it is missing or not finite."""
        value = self.metric.value
        return value if value is not None and math.isfinite(value) else None

    @property
    def status(self) -> Status:
        """The worse of the line's and the metric's own."""
        own = self.metric.validity
        return max(self.line.validity.status, own.status if own else "valid", key=SEVERITY.__getitem__)

    @property
    def doubt(self) -> str:
        """Why the number is noisy or wrong, empty where it is neither."""
        if self.status == "valid":
            return ""
        own = self.metric.validity
        chosen = own if own is not None and own.status == self.status else self.line.validity
        return "; ".join(chosen.reasons) or chosen.status


@dataclass(frozen=True)
class ResultRow:
    """One artifact and the newest line of each aspect."""

    subject: Subject
    is_baseline: bool
    lines: tuple[Measurement, ...]

    def line(self, aspect: Aspect) -> Measurement | None:
        """The line of one aspect, or None when it was not measured."""
        return next((line for line in self.lines if aspect_of(line) == aspect), None)

    def reading(self, name: str) -> MetricReading | None:
        """The metric ``name``, whichever line holds it; a quality line wins over a latency line."""
        ordered = sorted(self.lines, key=lambda line: ASPECTS.index(aspect_of(line)))
        return next(
            (MetricReading(line.metrics[name], line) for line in ordered if name in line.metrics), None
        )

    def usable(self, name: str) -> float | None:
        """The value of ``name`` where it is there and its line is not invalid."""
        reading = self.reading(name)
        return None if reading is None or reading.status == "invalid" else reading.value

    @property
    def shown(self) -> str:
        """What says which numbers are shown: the kind, and whether it reads images."""
        images = any(line.workload.get("kind") == "see" for line in self.lines)
        return f"{self.subject.kind}{OF_IMAGES if images else ''}"

    @property
    def status(self) -> Status:
        """The worst validity of the row's lines."""
        return max((line.validity.status for line in self.lines), key=SEVERITY.__getitem__, default="valid")


@dataclass(frozen=True)
class Delivered:
    """The manifest of the version that was delivered, and what speaks for it, without a full stop."""

    manifest_sha256: str
    why: str


@dataclass(frozen=True)
class ResultGroup:
    """The rows that were made from one model and measured under one set of conditions; ``chosen``: the
    one that was delivered of them, where that is decided already.
    """

    source: str
    kind: Literal["decoder", "encoder", "classifier"]
    rows: tuple[ResultRow, ...]
    reference: Subject | None
    further: tuple[ResultGroup, ...] = ()
    chosen: Delivered | None = None

    @property
    def shown(self) -> str:
        """As :attr:`ResultRow.shown`, of the rows that were timed."""
        return max((row.shown for row in self.rows), key=len, default=self.kind)

    @property
    def compressed(self) -> tuple[ResultRow, ...]:
        return tuple(row for row in self.rows if not row.is_baseline)

    @property
    def baselines(self) -> tuple[ResultRow, ...]:
        return tuple(row for row in self.rows if row.is_baseline)

    @property
    def delivered(self) -> ResultRow | None:
        """The row that was chosen, where it is one of these."""
        own = self.chosen.manifest_sha256 if self.chosen else None
        return next((row for row in self.compressed if row.subject.manifest_sha256 == own), None)

    def doubt(self, row: ResultRow, name: str) -> str:
        """Why ``name`` of ``row`` is noisy, or else that of the original which it is compared with."""
        own, line = row.reading(name), row.line("latency")
        if own is None or own.doubt or line is None or line.baseline is None:
            return own.doubt if own is not None else ""
        beside = (
            one for one in self.baselines if one.subject.manifest_sha256 == line.baseline.manifest_sha256
        )
        readings = (one.reading(name) for one in beside)
        found = next((one.doubt for one in readings if one is not None), "")
        return f"the original: {found}" if found else ""

    def ratio(self, row: ResultRow) -> float | None:
        """How many times smaller ``row`` is on disk than the reference, or None without one."""
        if self.reference is None or min(self.reference.disk_bytes, row.subject.disk_bytes) <= 0:
            return None
        return self.reference.disk_bytes / row.subject.disk_bytes

    def example(self, aspect: Aspect) -> Measurement | None:
        """A line that shows the conditions of ``aspect`` in this group."""
        return next((line for row in self.rows if (line := row.line(aspect)) is not None), None)


def aspect_of(line: Measurement) -> Aspect:
    """``quality`` for a line from validate, ``latency`` for one from profile."""
    return "quality" if line.workload.get("kind") == "quality" else "latency"
