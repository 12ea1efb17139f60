"""What a choice takes on a device: the seconds of each product, and of all the rest, which the choice does
not change. Decoding a token is a product with one row, the first token one with the prompt's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..errors import InputError
from .budgets import DECODE, FIRST_TOKEN, Budget
from .candidates import Space, Unit
from .solve import Table

# What `profile` measures: the rows of a prompt, and the context of a token that is decoded half-way.
PROMPT, CONTEXT = 128, 192


class DeviceLatency(Protocol):
    """Seconds on one device with the threads that are used there, as its kernel table has them."""

    def product(self, scheme: Scheme | None, outputs: int, inputs: int, rows: int) -> float:
        """Of ``[rows, inputs]`` times weights ``[outputs, inputs]``; None is float32."""

    def rest(self, source: WeightSource, rows: int, context: int) -> float:
        """Of everything else in a pass over ``rows`` new tokens, the last of which sees ``context``."""


@dataclass(frozen=True)
class Timed:
    """``seconds[unit][option]``, and those of the ``rest`` of a pass."""

    seconds: Table
    rest: float


def device_latency(budget: Budget) -> DeviceLatency:
    """Of the budget's device.

    Raises:
        InputError: it is not known.
    """
    raise InputError(
        f"{budget.shown()}: no choice can be made for a speed yet",
        why="what each candidate takes on a device is not predicted yet",
        fix="give budgets of disk, memory and KL, and measure with: edgepress profile BUNDLE",
    )


def times_of(
    space: Space, source: WeightSource, budgets: Sequence[Budget], latencies: Mapping[str, DeviceLatency]
) -> dict[str, Timed]:
    """By the key of each budget of a speed; ``latencies`` by device."""
    found = {}
    for budget in budgets:
        if budget.quantity not in (DECODE, FIRST_TOKEN):
            continue
        rows, context = (1, CONTEXT) if budget.quantity is DECODE else (PROMPT, PROMPT)
        device = latencies[str(budget.device)]
        seconds = [_seconds(source, unit, device, rows) for unit in space.units]
        found[budget.key] = Timed(seconds, device.rest(source, rows, context))
    return found


def _seconds(source: WeightSource, unit: Unit, device: DeviceLatency, rows: int) -> list[float]:
    """Of each option: linears with the same inputs are one product, a head is computed for one row."""
    anatomy = source.anatomy
    if unit.is_table:
        multiplies = anatomy.tied or unit.modules == (anatomy.head,)
        if not multiplies:
            return [0.0] * len(unit.options)
        shape = anatomy.vocab_size, anatomy.hidden_size, 1
    else:
        shapes = [source.shapes[f"{name}.weight"] for name in unit.modules]
        shape = sum(outputs for outputs, _ in shapes), shapes[0][1], rows
    return [device.product(option.scheme, *shape) for option in unit.options]
