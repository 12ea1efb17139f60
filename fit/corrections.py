"""Predictions of what a choice gives, and how measurements correct them: an offset of bytes, a factor of
damage.

Damage is predicted of rounding to nearest, one change at a time; what finds codes better, and what changes do
to one another, is a factor that the first trial of each method measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .budgets import DAMAGES, DECODE, DISK, FIRST_TOKEN, KL, MEMORY, SLICE_KL, Budget
from .candidates import Space
from .methods import CACHE_BITS, Method
from .solve import Limit, Table

# How near predicted bytes are to a bundle's, as a fraction: what is left free until one was built.
_BYTES_BAND = 0.002
# After one: what manifests and cards of other choices may have more, in bytes.
_BYTES_SPARE = 1024
# After one by another method.
_METHOD_SPARE = 16384
# What is left of a KL budget, which a measurement on other text may exceed.
_KL_BAND = 0.03


@dataclass
class Corrections:
    """What trials so far say of the predictions.

    Attributes:
        disk: bytes that bundles have more than predicted, by method, whose passes manifests describe.
        memory: bytes that processes have more than predicted, by device.
        damage: measured KL by predicted, by the key of its budget and by method.
        times: seconds of units, by the key of a budget of speed; ``rest``: the other seconds of a pass.
    """

    disk: dict[Method, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    damage: dict[str, dict[Method, float]] = field(default_factory=dict)
    times: Mapping[str, Table] = field(default_factory=dict)
    rest: dict[str, float] = field(default_factory=dict)

    def learn(
        self, space: Space, options: Sequence[int], method: Method, measured: Mapping[str, float]
    ) -> None:
        """Take in what was ``measured`` of a choice, by :attr:`.budgets.Budget.key`."""
        size, damage = _total(space.sizes, options), _total(space.damages, options)
        self.disk[method] = measured[DISK.name] - space.shipped - size
        for key, value in measured.items():
            if key.startswith(f"{MEMORY.name} on "):
                self.memory[key.removeprefix(f"{MEMORY.name} on ")] = value - _resident(space, method) - size
            elif key.startswith((KL.name, SLICE_KL.name)) and damage > 0:
                self.damage.setdefault(key, {})[method] = value / damage
        for key, seconds in self.times.items():
            whole = 1 / measured[key] if key.startswith(DECODE.name) else measured[key]
            self.rest[key] = whole - _total(seconds, options)

    def factor(self, method: Method, key: str = KL.name) -> float | None:
        """Of the damage by ``method``, of all text or of what the ``key`` of a budget is about: its own, or
        that of another method, which is nearer than none.
        """
        return _own_or_last(self.damage.get(key, {}), method)

    def predicted(
        self, space: Space, options: Sequence[int], method: Method, budgets: Sequence[Budget]
    ) -> dict[str, Any]:
        """By the key of each budget, and of disk and KL always."""
        size, damage = _total(space.sizes, options), _total(space.damages, options)
        found = {
            DISK.name: space.shipped + size + (_own_or_last(self.disk, method) or 0.0),
            KL.name: damage * (self.factor(method) or 1.0),
        }
        for budget in budgets:
            if budget.quantity is MEMORY:
                found[budget.key] = _resident(space, method) + size + self.memory.get(str(budget.device), 0.0)
            elif budget.key in self.times:
                seconds = self.rest.get(budget.key, 0.0) + _total(self.times[budget.key], options)
                found[budget.key] = 1 / seconds if budget.quantity is DECODE else seconds
            elif budget.quantity in DAMAGES and (factor := self.factor(method, budget.key)) is not None:
                found[budget.key] = damage * factor
        return found

    def limits(self, space: Space, budgets: Sequence[Budget], method: Method) -> list[Limit]:
        """The budgets as limits of what units use, in the budgets' order. One of the damage is none before a
        trial has said what predicted damage means, unless nothing else is bounded.
        """
        found, alone = [], all(one.quantity in DAMAGES for one in budgets)
        for budget in budgets:
            factor = self.factor(method, budget.key)
            if budget.quantity is DISK:
                room = budget.bound - space.shipped
                room -= self._kept_free(budget, method)
                found.append(Limit(budget.key, space.sizes, room))
            elif budget.quantity is MEMORY:
                room = budget.bound - _resident(space, method) - self.memory.get(str(budget.device), 0.0)
                found.append(Limit(budget.key, space.sizes, room))
            elif budget.quantity in (DECODE, FIRST_TOKEN):
                seconds = 1 / budget.bound if budget.quantity is DECODE else budget.bound
                room = seconds - self.rest.get(budget.key, 0.0)
                found.append(Limit(budget.key, self.times[budget.key], room))
            elif budget.quantity in DAMAGES and (factor is not None or alone):
                bound = (1 - _KL_BAND) * budget.bound / (factor or 1.0)
                found.append(Limit(budget.key, space.damages, bound))
        return found

    def _kept_free(self, budget: Budget, method: Method) -> float:
        """Bytes of a budget that no unit may use."""
        band, more = _BYTES_BAND * budget.bound, _own_or_last(self.disk, method)
        if more is None:
            return band
        return more + (_BYTES_SPARE if method in self.disk else min(band, _METHOD_SPARE))

    def bound_of(self, budget: Budget, limit: Limit, bound: float, method: Method) -> float:
        """What the budget would have to be for its ``limit`` to have another ``bound``."""
        if budget.quantity in DAMAGES:
            return bound * (self.factor(method, budget.key) or 1.0) / (1 - _KL_BAND)
        if budget.quantity in (DECODE, FIRST_TOKEN):
            seconds = bound + self.rest.get(budget.key, 0.0)
            return 1 / seconds if budget.quantity is DECODE else seconds
        return budget.bound + bound - limit.bound


def _resident(space: Space, method: Method) -> float:
    """Bytes of a process, without the units."""
    return space.resident - (space.cache * (1 - CACHE_BITS / 32) if method.cached else 0.0)


def _own_or_last(found: Mapping[Method, float], method: Method) -> float | None:
    """What was measured of the method, or of another one, which is nearer than nothing."""
    return found.get(method, next(reversed(list(found.values())), None))


def _total(table: Table, options: Sequence[int]) -> float:
    return math.fsum(row[option] for row, option in zip(table, options, strict=True))
