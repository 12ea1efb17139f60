"""The rows of a table, each an artifact with its measurement lines, in groups by the model that it was made
from and by the conditions; :mod:`.join` makes them of lines.

The columns of the results: which numbers a decoder and an encoder show, and with how many digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..records import conditions
from ..records.record import Measurement, Metric, Subject

Aspect = Literal["quality", "latency"]
Status = Literal["valid", "suspect", "invalid"]
ASPECTS: tuple[Aspect, ...] = ("quality", "latency")
ASPECT_NAMES: dict[Aspect, str] = {"quality": "quality", "latency": "latency and memory"}
SEVERITY: dict[Status, int] = {"valid": 0, "suspect": 1, "invalid": 2}
# Of a kind that reads images, in the names of what is shown.
OF_IMAGES = " of images"
FRONT: dict[str, tuple[tuple[str, ...], str]] = {
    "decoder": (("size", "kl", "decode_tps"), "size, KL and decoding speed"),
    "encoder": (("size", "cosine", "sentences_per_second"), "size, cosine and speed"),
    "classifier": (("size", "label_kl", "sentences_per_second"), "size, label KL and speed"),
    f"encoder{OF_IMAGES}": (("size", "cosine", "images_per_second"), "size, cosine and speed"),
    f"classifier{OF_IMAGES}": (("size", "label_kl", "images_per_second"), "size, label KL and speed"),
}


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


@dataclass(frozen=True)
class Column:
    """A column: the metric it shows and how numbers are written; ``metric`` is None for size and ratio.

    ``scale`` turns the metric's own unit into the column's, for instance bytes into megabytes.
    """

    key: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    write: Callable[[float], str]
    scale: float = 1.0

    @property
    def metric(self) -> str | None:
        """The name of the metric in a measurement."""
        return None if self.key in ("size", "ratio") else self.key

    def text(self, value: float) -> str:
        """A value in the unit of the column."""
        return self.write(value * self.scale)

    def interval(self, value: float, ends: tuple[float, float]) -> tuple[str, str]:
        """An interval from end to end, and as plus or minus its longer arm, with the digits of ``value``.

        Both are empty where the ends do not differ in these digits.
        """
        decimals = len(self.text(value).partition(".")[2])
        low, high = (conditions.fixed(end * self.scale, decimals) for end in ends)
        if low == high:
            return "", ""
        arm = self.scale * max(ends[1] - value, value - ends[0])
        return f"{low}–{high}", f"±{conditions.fixed(arm, decimals)}"


def _short(decimals: int) -> Callable[[float], str]:
    return lambda value: conditions.fixed(value, decimals)


SIZE = Column("size", "shipped", "MB", "lower", conditions.significant, 1e-6)
# Of the bundle's folder after it has run: what was shipped, and whatever running it has left there.
DEVICE = Column("device_bytes", "on device", "MB", "lower", conditions.significant, 1e-6)
RATIO = Column("ratio", "smaller", "×", "higher", lambda value: conditions.significant(value, 2))
RSS = Column("rss_peak_bytes", "resident", "MB", "lower", conditions.significant, 1e-6)
_OF_A_SENTENCE = Column("batch_j_per_sentence", "energy", "mJ/sent", "lower", conditions.significant, 1e3)
_OF_AN_IMAGE = Column("batch_j_per_image", "energy", "mJ/image", "lower", conditions.significant, 1e3)
ENERGY = {
    "decoder": Column("decode_j_per_token", "energy", "mJ/token", "lower", conditions.significant, 1e3),
    "encoder": _OF_A_SENTENCE,
    "classifier": _OF_A_SENTENCE,
    f"encoder{OF_IMAGES}": _OF_AN_IMAGE,
    f"classifier{OF_IMAGES}": _OF_AN_IMAGE,
}
_LATENCY = Column("latency_ms", "latency", "ms", "lower", conditions.significant)
_OF_SENTENCES = (
    Column("sentences_per_second", "speed", "sent/s", "higher", conditions.significant),
    _LATENCY,
    RSS,
    _OF_A_SENTENCE,
)
_OF_IMAGES = (
    Column("images_per_second", "speed", "img/s", "higher", conditions.significant),
    _LATENCY,
    RSS,
    _OF_AN_IMAGE,
)
_OF_VECTORS = (
    SIZE,
    DEVICE,
    RATIO,
    Column("cosine", "cosine", "", "higher", _short(4)),
    Column("retrieval_at_1", "R@1", "%", "higher", _short(1), 100.0),
    Column("neighbour_overlap", "nearest 10", "%", "higher", _short(1), 100.0),
)
_OF_LABELS = (
    SIZE,
    DEVICE,
    RATIO,
    Column("label_accuracy", "accuracy", "%", "higher", _short(1), 100.0),
    Column("label_agreement", "labels", "%", "higher", _short(1), 100.0),
    Column("label_kl", "label KL", "nats", "lower", _short(4)),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "decoder": (
        SIZE,
        DEVICE,
        RATIO,
        Column("perplexity", "perplexity", "", "lower", conditions.perplexity),
        Column("kl", "KL", "nats", "lower", _short(3)),
        Column("top1_agreement", "top-1", "%", "higher", _short(1), 100.0),
        Column("decode_tps", "decode", "tok/s", "higher", conditions.significant),
        Column("prefill_tps", "prefill", "tok/s", "higher", conditions.significant),
        RSS,
        ENERGY["decoder"],
    ),
    "encoder": (*_OF_VECTORS, *_OF_SENTENCES),
    "classifier": (*_OF_LABELS, *_OF_SENTENCES),
    f"encoder{OF_IMAGES}": (*_OF_VECTORS, *_OF_IMAGES),
    f"classifier{OF_IMAGES}": (*_OF_LABELS, *_OF_IMAGES),
}
