"""``Quantity``: what can be bounded, of which models, and in which units people write it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_SECONDS = {"s": 1.0, "ms": 1e-3}
_RATES = {"": 1.0, "tok/s": 1.0}
_TEXT_RATES = {"": 1.0, "/s": 1.0, "sentences/s": 1.0}
_JOULES = {"J": 1.0, "mJ": 1e-3}
_NATS = {"": 1.0, "nats": 1.0}
_SHARES = {"": 1.0, "%": 0.01}
DECODER, ENCODER, CLASSIFIER = "decoder", "encoder", "classifier"
ENCODER_DECODER = "encoder_decoder"
IMAGE_ENCODER, IMAGE_CLASSIFIER = "encoder of images", "classifier of images"
_TEXTS = (ENCODER, CLASSIFIER)
_IMAGES = (IMAGE_ENCODER, IMAGE_CLASSIFIER)
_WRITE = (DECODER, ENCODER_DECODER)
_ALL = (*_WRITE, *_TEXTS)


@dataclass(frozen=True)
class Quantity:
    """What can be bounded.

    Attributes:
        name: of it, as reports have it; ``option``: of the verb.
        side: whether the budget is the most or the least that is allowed.
        units: factors to bytes, seconds, tokens or texts a second, joules, nats or shares, by their names in
            any case; "" where a bare number is clear. example: a budget as one writes it.
        metrics: where a measurement line has it, the first that is there; none for bytes on the
            disk and slices.
        on_device: differs from device to device. on_slice: is of the worst group of a slice of text.
        unit: in which it is shown. models: of which kinds it is measured. most: what no model exceeds.
        original: what the original itself has; None where that is measured.
    """

    name: str
    option: str
    side: Literal["max", "min"]
    units: Mapping[str, float] = field(compare=False)
    example: str
    metrics: tuple[str, ...] = ()
    on_device: bool = False
    on_slice: bool = False
    unit: str = ""
    models: tuple[str, ...] = _ALL
    most: float = math.inf
    original: float | None = None

    @property
    def of_quality(self) -> bool:
        """Whether it says how far a model is from the original, or how good it is."""
        return self.on_slice or (bool(self.metrics) and not self.on_device)

    def holds(self, measured: float, bound: float) -> bool:
        """Whether ``measured`` keeps the ``bound``."""
        return measured <= bound if self.side == "max" else measured >= bound

    def lost(self, value: float, original: float | None = None) -> float:
        """How much worse ``value`` is than the ``original``'s, which may be left out where it is known."""
        whole = self.original if original is None else original
        return value - (whole or 0.0) if self.side == "max" else (whole or 0.0) - value

    def after(self, loss: float, original: float | None = None) -> float:
        """The value of which :meth:`lost` is ``loss``."""
        whole = self.original if original is None else original
        return (whole or 0.0) + loss if self.side == "max" else (whole or 0.0) - loss

    def shown(self, value: float) -> str:
        """``60.0 MB``, ``102 tok/s``, ``0.81 s``, ``0.104``, of shares ``0.9871``."""
        if self.units is _BYTES:
            return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
        return f"{value:.{4 if self.units is _SHARES else 3}g}{self.unit and ' '}{self.unit}"


DISK = Quantity("disk", "--max-disk", "max", _BYTES, "60MB", models=(*_ALL, *_IMAGES))
MEMORY = Quantity(
    "memory",
    "--max-memory",
    "max",
    _BYTES,
    "300MB",
    ("rss_peak_bytes",),
    on_device=True,
    models=(*_ALL, *_IMAGES),
)
DECODE = Quantity(
    "decode",
    "--min-decode",
    "min",
    _RATES,
    "100",
    ("decode_tps",),
    on_device=True,
    unit="tok/s",
    models=_WRITE,
)
FIRST_TOKEN = Quantity(
    "first token",
    "--max-first-token",
    "max",
    _SECONDS,
    "0.8s",
    ("ttft_ms",),
    on_device=True,
    unit="s",
    models=_WRITE,
)
SENTENCES = Quantity(
    "sentences",
    "--min-sentences",
    "min",
    _TEXT_RATES,
    "400",
    ("sentences_per_second",),
    on_device=True,
    unit="/s",
    models=_TEXTS,
)
ENERGY = Quantity(
    "energy",
    "--max-energy",
    "max",
    _JOULES,
    "0.2J",
    ("decode_j_per_token", "batch_j_per_sentence"),
    on_device=True,
    unit="J",
)
KL = Quantity(
    "KL",
    "--max-kl",
    "max",
    _NATS,
    "0.1",
    ("kl", "label_kl"),
    models=(*_WRITE, CLASSIFIER, IMAGE_CLASSIFIER),
    original=0.0,
)
SLICE_KL = Quantity(
    "worst KL",
    "--max-slice-kl",
    "max",
    _NATS,
    "languages=0.3",
    on_slice=True,
    models=(DECODER,),
    original=0.0,
)
COSINE = Quantity(
    "cosine",
    "--min-cosine",
    "min",
    _SHARES,
    "0.98",
    ("cosine",),
    models=(ENCODER, IMAGE_ENCODER),
    most=1.0,
    original=1.0,
)
SPEARMAN = Quantity(
    "Spearman",
    "--min-spearman",
    "min",
    _SHARES,
    "0.98",
    ("spearman_sentences",),
    models=(ENCODER,),
    most=1.0,
    original=1.0,
)
ACCURACY = Quantity(
    "accuracy", "--min-accuracy", "min", _SHARES, "0.9", ("label_accuracy",), models=(CLASSIFIER,), most=1.0
)
QUANTITIES = (DISK, MEMORY, DECODE, FIRST_TOKEN, SENTENCES, ENERGY, KL, SLICE_KL, COSINE, SPEARMAN, ACCURACY)
TIMED = (DECODE, FIRST_TOKEN, SENTENCES, ENERGY)
RATES = (DECODE, SENTENCES)


def quantity_of(key: str) -> Quantity:
    """Of a :attr:`Budget.key`."""
    return next(
        one for one in QUANTITIES if key == one.name or key.startswith((f"{one.name} on ", f"{one.name} of "))
    )
