"""The columns of the results: which numbers a decoder and an encoder show, and with how many digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..records import conditions
from .result_groups import OF_IMAGES


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
FRONT: dict[str, tuple[tuple[str, ...], str]] = {
    "decoder": (("size", "kl", "decode_tps"), "size, KL and decoding speed"),
    "encoder": (("size", "cosine", "sentences_per_second"), "size, cosine and speed"),
    "classifier": (("size", "label_kl", "sentences_per_second"), "size, label KL and speed"),
    f"encoder{OF_IMAGES}": (("size", "cosine", "images_per_second"), "size, cosine and speed"),
    f"classifier{OF_IMAGES}": (("size", "label_kl", "images_per_second"), "size, label KL and speed"),
}
