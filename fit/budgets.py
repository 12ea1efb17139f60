"""``Budget``: what must hold of the result, and on which device, as a person types it: ``60MB``,
``100 tok/s``, ``here=100,pi=20``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..errors import InputError, UnknownName

_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_SECONDS = {"s": 1.0, "ms": 1e-3}
_RATES = {"": 1.0, "tok/s": 1.0}
_NATS = {"": 1.0, "nats": 1.0}
_VALUE = re.compile(r"(?P<number>[+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*(?P<unit>[a-zA-Z/]*)$")


@dataclass(frozen=True)
class Quantity:
    """What can be bounded.

    Attributes:
        name: of it, as reports have it; ``option``: of the verb.
        side: whether the budget is the most or the least that is allowed.
        units: factors to bytes, seconds, tokens/s or nats, by their names in any case; "" where a bare number
            is clear. example: a budget as one writes it.
        metric: where a measurement line has it, "" for bytes on the disk and for slices.
        on_device: differs from device to device. on_slice: is of the worst group of a slice of text.
    """

    name: str
    option: str
    side: Literal["max", "min"]
    units: Mapping[str, float] = field(compare=False)
    example: str
    metric: str
    on_device: bool = False
    on_slice: bool = False

    def holds(self, measured: float, bound: float) -> bool:
        """Whether ``measured`` keeps the ``bound``."""
        return measured <= bound if self.side == "max" else measured >= bound

    def shown(self, value: float) -> str:
        """``60.0 MB``, ``102 tok/s``, ``0.81 s``, ``0.104``."""
        if self.units is _BYTES:
            return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
        return f"{value:.3g}{' tok/s' if self.units is _RATES else ' s' if self.units is _SECONDS else ''}"


DISK = Quantity("disk", "--max-disk", "max", _BYTES, "60MB", "")
MEMORY = Quantity("memory", "--max-memory", "max", _BYTES, "300MB", "rss_peak_bytes", on_device=True)
DECODE = Quantity("decode", "--min-decode", "min", _RATES, "100", "decode_tps", on_device=True)
FIRST_TOKEN = Quantity("first token", "--max-first-token", "max", _SECONDS, "0.8s", "ttft_ms", on_device=True)
KL = Quantity("KL", "--max-kl", "max", _NATS, "0.1", "kl")
SLICE_KL = Quantity("worst KL", "--max-slice-kl", "max", _NATS, "languages=0.3", "", on_slice=True)
QUANTITIES = (DISK, MEMORY, DECODE, FIRST_TOKEN, KL, SLICE_KL)
# What a choice does to the model's distributions.
DAMAGES = (KL, SLICE_KL)


@dataclass(frozen=True)
class Budget:
    """``bound`` of a quantity, in bytes, seconds, tokens/s or nats a token; on the ``device`` of that name
    where devices differ, or of the worst group of the ``slice``.
    """

    quantity: Quantity
    bound: float
    device: str | None = None
    slice: str | None = None

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` keeps it."""
        return self.quantity.holds(measured, self.bound)

    def shown(self) -> str:
        """``disk ≤ 60.0 MB``, ``decode ≥ 100 tok/s on pi``, ``worst KL of languages ≤ 0.3``."""
        sign = "≤" if self.quantity.side == "max" else "≥"
        where = f" on {self.device}" if self.device is not None else ""
        return f"{self.quantity.name}{self._of_slice} {sign} {self.quantity.shown(self.bound)}{where}"

    @property
    def key(self) -> str:
        """Of it among others: ``disk``, ``decode on pi``, ``worst KL of languages``."""
        where = f" on {self.device}" if self.device is not None else ""
        return f"{self.quantity.name}{self._of_slice}{where}"

    @property
    def _of_slice(self) -> str:
        return "" if self.slice is None else f" of {self.slice}"


def parse(quantity: Quantity, text: str, devices: Sequence[str]) -> list[Budget]:
    """The budgets that ``text`` sets: one value for all ``devices``, or ``NAME=VALUE`` for some, by comma; of
    slices always ``NAME=VALUE``.

    Raises:
        InputError: no number, no positive one, an unknown or missing unit, a device or slice named twice, a
            device for what is the same everywhere, or no slice for what is of one; says what was given and
            what one writes.
        UnknownName: a device that is not one of ``devices``.
    """
    if "=" not in text and quantity.on_slice:
        raise InputError(f"{quantity.option} {text}: of which slice?", fix=f"write {quantity.example}")
    if "=" not in text:
        bound = _value(quantity, text)
        return [Budget(quantity, bound, name) for name in (devices if quantity.on_device else (None,))]
    if not quantity.on_device and not quantity.on_slice:
        raise InputError(
            f"{quantity.option} {text}: {quantity.name} is the same on every device",
            fix=f"give one value: {quantity.option} {quantity.example}",
        )
    found: dict[str, Budget] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if quantity.on_device and name not in devices:
            raise UnknownName("device", name, devices)
        if name in found:
            raise InputError(f"{quantity.option} {text}: {name} has two budgets", fix="keep one of them")
        bound = _value(quantity, value)
        found[name] = (
            Budget(quantity, bound, slice=name) if quantity.on_slice else Budget(quantity, bound, name)
        )
    return list(found.values())


def _value(quantity: Quantity, text: str) -> float:
    match = _VALUE.match(text.strip())
    example = f"write it like {quantity.option} {quantity.example}"
    try:
        number = float(match["number"]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise InputError(f"{quantity.option} {text!r}: that is no value of {quantity.name}", fix=example)
    unit = match["unit"].lower()
    factor = next((size for name, size in quantity.units.items() if name.lower() == unit), None)
    if factor is None:
        units = ", ".join(name for name in quantity.units if name)
        what = f"has no unit, and {match['number']} of what is not clear" if not unit else "has another unit"
        raise InputError(f"{quantity.option} {text!r} {what}", fix=f"{example}; units: {units}")
    if number <= 0:
        raise InputError(
            f"{quantity.option} {text!r}: nothing keeps a bound of {number:g}",
            why=f"{quantity.name} is above 0 for every model",
            fix=example,
        )
    return number * factor
