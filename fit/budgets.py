"""``Budget``: what must hold of the result, and on which device, as a person types it: ``60MB``,
``100 tok/s``, ``here=100,pi=20``, ``0.2J@raspberry-pi-5``.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..devices.target import target
from ..errors import InputError, UnknownName, nearest
from .quantities import ENERGY, QUANTITIES, Quantity

_VALUE = re.compile(r"(?P<number>[+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*(?P<unit>[a-zA-Z/%]*)$")


@dataclass(frozen=True)
class Budget:
    """``bound`` of a quantity, in bytes, seconds, tokens/s, joules or nats a token; on the ``device`` of that
    name where devices differ, or of the worst group of the ``slice``. ``watts``: of a data sheet, by which
    energy is modelled; None where it is counted.
    """

    quantity: Quantity
    bound: float
    device: str | None = None
    slice: str | None = None
    watts: float | None = None

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` keeps it."""
        return self.quantity.holds(measured, self.bound)

    def shown(self) -> str:
        """``disk ≤ 60.0 MB``, ``decode ≥ 100 tok/s on pi``, ``worst KL of languages ≤ 0.3``."""
        sign = "≤" if self.quantity.side == "max" else "≥"
        where = f" on {self.device}" if self.device is not None else ""
        modelled = f", modelled at {self.watts:g} W" if self.watts is not None else ""
        bound = self.quantity.shown(self.bound)
        return f"{self.quantity.name}{self._of_slice} {sign} {bound}{where}{modelled}"

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
    """
    if "=" not in text and quantity.on_slice:
        raise InputError(f"{quantity.option} {text}: of which slice?", fix=f"write {quantity.example}")
    if "=" not in text:
        bound, watts = _value(quantity, text)
        named = devices if quantity.on_device else (None,)
        return [Budget(quantity, bound, name, watts=watts) for name in named]
    if not quantity.on_device and not quantity.on_slice:
        raise InputError(
            f"{quantity.option} {text}: {quantity.name} is the same on every device",
            fix=f"give one value: {quantity.option} {quantity.example}",
        )
    found: dict[str, Budget] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if quantity.on_device and name not in devices:
            also = "" if nearest(name, devices) else f"measure on it, too: --on {','.join([*devices, name])}"
            raise UnknownName("device", name, devices, fix=also)
        if name in found:
            raise InputError(f"{quantity.option} {text}: {name} has two budgets", fix="keep one of them")
        bound, watts = _value(quantity, value)
        found[name] = (
            Budget(quantity, bound, slice=name)
            if quantity.on_slice
            else Budget(quantity, bound, name, watts=watts)
        )
    return list(found.values())


def _value(quantity: Quantity, text: str) -> tuple[float, float | None]:
    """The bound, and of energy the watts of the target behind an ``@``."""
    text, named, name = text.partition("@")
    if named and quantity is not ENERGY:
        raise InputError(f"{quantity.option} {text}@{name}: only energy is modelled by the power of a target")
    return _number(quantity, text), target(name.strip()).power.value if named else None


def _number(quantity: Quantity, text: str) -> float:
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
    if number * factor > quantity.most:
        raise InputError(
            f"{quantity.option} {text!r}: {quantity.name} is at most {quantity.most:g}", fix=example
        )
    return number * factor


def refuse_other_kinds(budgets: Sequence[Budget], kind: str, model: str) -> None:
    """Refuse budgets of what is not measured of a model of this ``kind``."""
    for budget in budgets:
        if kind not in budget.quantity.models:
            known = ", ".join(one.option for one in QUANTITIES if kind in one.models)
            raise InputError(
                f"{budget.quantity.option}: {model} is a model of kind {kind!r}, which has no such figure",
                fix=f"its budgets are {known}",
            )
