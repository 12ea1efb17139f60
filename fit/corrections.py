"""Predictions of what a choice gives, and how measurements correct them: an offset of bytes, a factor of
damage, factors of seconds by the size of the bundle.

Damage is predicted of one change at a time, linears rounded by GPTQ; what learning takes back, and what
changes do to one another, is a factor that the first trial of each method measures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Self

from ..devices.predict.caches import interpolated
from .budgets import Budget
from .candidates import Space
from .methods import CACHE_BITS, Method
from .quantities import COSINE, DISK, ENERGY, KL, MEMORY, RATES, TIMED, Quantity, quantity_of
from .solve import Limit, Table, total

# How near predicted bytes are to a bundle's, as a fraction: what is left free until one was built.
_BYTES_BAND = 0.002
# After one: what manifests and cards of other choices may have more, in bytes.
_BYTES_SPARE = 1024
# After one by another method.
_METHOD_SPARE = 16384
# What peaks of two processes of a bundle differ by, as a fraction: left free once one was measured.
_MEMORY_BAND = 0.002
# What is left of the loss that a budget allows, which a measurement on other text may exceed.
_LOSS_BAND = 0.03
_MOST = "bytes that times are of"  # the name of a limit
# The least loss by a trial that predictions rest on: of accuracy nothing may be lost, by chance.
_LEAST_LOSS = 1e-3


@dataclass
class Corrections:
    """What trials so far say of the predictions.

    Attributes:
        disk: bytes that bundles have more than predicted, by method, whose passes manifests describe.
        memory: bytes that processes have more than predicted, by device.
        losses: measured loss by predicted damage, by the key of a figure of quality and by method.
            originals: what the original has, by the key.
        seconds: measured seconds of a pass by predicted ones, by the key of a budget of speed or energy, and
            by the bytes of the bundle: how much of it fits into caches is what is predicted worst.
        watts: by the key of a budget of energy, of its target or as counted.
    """

    disk: dict[Method, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    losses: dict[str, dict[Method, float]] = field(default_factory=dict)
    originals: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, dict[float, float]] = field(default_factory=dict)
    watts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def before(cls, budgets: Sequence[Budget]) -> Self:
        """What is known before anything was built."""
        return cls(watts={one.key: one.watts for one in budgets if one.watts is not None})

    def learn(
        self,
        space: Space,
        options: Sequence[int],
        method: Method,
        measured: Mapping[str, float],
        originals: Mapping[str, float],
    ) -> None:
        """Take in what was ``measured`` of a choice, by :attr:`.budgets.Budget.key`, and the ``originals`` of
        each figure of quality.
        """
        size, damage = (
            total(space.sizes, options),
            before(space, method) + total(damages_by(space, method), options),
        )
        self.disk[method] = measured[DISK.name] - space.shipped - size
        for key, value in measured.items():
            if key.startswith(f"{MEMORY.name} on "):
                self.memory[key.removeprefix(f"{MEMORY.name} on ")] = value - _resident(space, method) - size
        for key, original in originals.items():
            self.originals[key] = original
            loss = quantity_of(key).lost(measured[key], original)
            least = 0.0 if key == space.judged.name else _LEAST_LOSS
            if damage > 0:
                self.losses.setdefault(key, {})[method] = max(loss, least) / damage
        for key, times in space.times.items():
            whole, bundle = measured[key], space.size(options)
            if quantity_of(key) is ENERGY:
                rates = (f"{rate.name} on {key.partition(' on ')[2]}" for rate in RATES)
                rate = next(measured[one] for one in rates if one in measured)
                self.watts[key], whole = whole * rate, 1 / rate
            elif quantity_of(key) in RATES:
                whole = 1 / whole
            factors = self.seconds.setdefault(key, {})
            factors[times.step(bundle)] = whole / times.seconds(bundle, options)

    def factor(self, key: str, method: Method) -> float | None:
        """The loss that damage by ``method`` is: its own, or that by another method, which is nearer than
        none.
        """
        return _own_or_last(self.losses.get(key, {}), method)

    def value(self, key: str, method: Method, damage: float) -> float:
        """The predicted figure of quality."""
        factor = self.factor(key, method) or _predicted_factor(quantity_of(key))
        return quantity_of(key).after(damage * factor, self._original(key))

    def _original(self, key: str) -> float:
        """What the original has; before it was measured the most that there is."""
        quantity = quantity_of(key)
        return self.originals.get(key, quantity.most if quantity.original is None else quantity.original)

    def predicted(
        self, space: Space, options: Sequence[int], method: Method, budgets: Sequence[Budget]
    ) -> dict[str, Any]:
        """By the key of each budget, and of disk and what is judged always."""
        size, damage = (
            total(space.sizes, options),
            before(space, method) + total(damages_by(space, method), options),
        )
        found = {DISK.name: space.shipped + size + (_own_or_last(self.disk, method) or 0.0)}
        found[space.judged.name] = self.value(space.judged.name, method, damage)
        for budget in budgets:
            if budget.quantity.of_quality:
                found[budget.key] = self.value(budget.key, method, damage)
            elif budget.quantity is MEMORY:
                found[budget.key] = _resident(space, method) + size + self.memory.get(str(budget.device), 0.0)
            elif budget.key in space.times:
                times, bundle = space.times[budget.key], space.size(options)
                factor = self._slowness(budget.key, times.step(bundle))
                if budget.quantity is not ENERGY or budget.key in self.watts:
                    found[budget.key] = self._timed(budget, factor * times.seconds(bundle, options))
        return found

    def limits(self, space: Space, budgets: Sequence[Budget], method: Method) -> list[list[Limit]]:
        """The budgets as limits of what units use, in the budgets' order: a set for bundles of each size that
        times are predicted at, of which a choice keeps one. A limit of the damage is none before a trial has
        said what predicted damage means, unless nothing else is bounded.
        """
        *smaller, largest = next((times.sizes for times in space.times.values()), (inf,))
        found = []
        for size in smaller:
            within = Limit(_MOST, space.sizes, size - space.shipped)
            found.append([*self._limits(space, budgets, method, size), within])
        return [*found, self._limits(space, budgets, method, largest)]

    def _limits(self, space: Space, budgets: Sequence[Budget], method: Method, size: float) -> list[Limit]:
        """In bundles that take as long as those of ``size`` bytes."""
        found, alone = [], all(one.quantity.of_quality for one in budgets)
        for budget in budgets:
            if budget.quantity is DISK:
                room = budget.bound - space.shipped
                room -= self._kept_free(budget, method)
                found.append(Limit(budget.key, space.sizes, room))
            elif budget.quantity is MEMORY:
                room = budget.bound - _resident(space, method) - self.memory.get(str(budget.device), 0.0)
                free = _MEMORY_BAND * budget.bound if str(budget.device) in self.memory else 0.0
                found.append(Limit(budget.key, space.sizes, room - free))
            elif budget.quantity in TIMED:
                if budget.quantity is ENERGY and budget.key not in self.watts:
                    continue  # what a second takes is counted in the first trial
                factor = self._slowness(budget.key, size)
                seconds = [[factor * one for one in row] for row in space.times[budget.key].within(size)]
                found.append(Limit(budget.key, seconds, self._timed(budget, budget.bound, backwards=True)))
            elif (damages := self.factor(budget.key, method)) is not None or alone:
                loss = budget.quantity.lost(budget.bound, self._original(budget.key))
                loss /= damages or _predicted_factor(budget.quantity)
                bound = (1 - _LOSS_BAND) * loss - before(space, method)
                found.append(Limit(budget.key, damages_by(space, method), bound))
        return found

    def _slowness(self, key: str, size: float) -> float:
        """Measured seconds by predicted ones, in a bundle of ``size`` bytes: between those of the sizes that
        were measured; 1 before any was.
        """
        known = sorted(self.seconds.get(key, {}).items())
        return interpolated(known, size) if known else 1.0

    def _timed(self, budget: Budget, value: float, *, backwards: bool = False) -> float:
        """What ``value`` seconds are in the budget's quantity, or ``backwards``."""
        if budget.quantity in RATES:
            return 1 / value
        watts = self.watts[budget.key] if budget.quantity is ENERGY else 1.0
        return value / watts if backwards else value * watts

    def _kept_free(self, budget: Budget, method: Method) -> float:
        """Bytes of a budget that no unit may use."""
        band, more = _BYTES_BAND * budget.bound, _own_or_last(self.disk, method)
        if more is None:
            return band
        return more + (_BYTES_SPARE if method in self.disk else min(band, _METHOD_SPARE))

    def bound_of(self, space: Space, budget: Budget, limit: Limit, bound: float, method: Method) -> float:
        """What the budget would have to be for its ``limit`` to have another ``bound``."""
        if budget.quantity.of_quality:
            return self.value(budget.key, method, (before(space, method) + bound) / (1 - _LOSS_BAND))
        if budget.quantity in TIMED:
            return self._timed(budget, bound)
        return budget.bound + bound - limit.bound


def objective_of(space: Space, budgets: Sequence[Budget]) -> str:
    """What is made best: what is judged; the size where nothing but quality is bounded."""
    return DISK.name if all(one.quantity.of_quality for one in budgets) else space.judged.name


def _predicted_factor(quantity: Quantity) -> float:
    """The loss that damage is, before a trial says more: of an encoder damage is a squared distance of unit
    vectors, which is twice what is missing to a cosine of 1.
    """
    return 0.5 if quantity is COSINE else 1.0


def before(space: Space, method: Method) -> float:
    """Damage without that of the units: of what was cut first, and of the cache."""
    return space.before + (space.cache_damage if method.cached else 0.0)


def damages_by(space: Space, method: Method) -> Table:
    """By unit and option: of linears what ``method`` leaves of it, where it learns."""
    left = method.left_by_learning if space.judged is KL else 1.0
    return [[one.damage * (1.0 if unit.is_table else left) for one in unit.options] for unit in space.units]


def _resident(space: Space, method: Method) -> float:
    """Bytes of a process, without the units."""
    return space.resident - (space.cache * (1 - CACHE_BITS / 32) if method.cached else 0.0)


def _own_or_last(found: Mapping[Method, float], method: Method) -> float | None:
    """What was measured of the method, or of another one, which is nearer than nothing."""
    return found.get(method, next(reversed(list(found.values())), None))
