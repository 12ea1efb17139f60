"""The times of candidates on each device that has a budget of speed or energy.

``Beside``: what a pass takes beside the products of units: norms, attention, the graph's small nodes, and
Python's call. Most of it goes with the blocks and heads that a cut takes.

It is what is predicted of a bundle of the smallest options less the products of these: of a model of which
nothing is predicted, nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import fsum

from ...benchmarks.speed.planned_graph import PlannedModel
from ...benchmarks.speed.planned_subject import planned_subject
from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import BlockAnatomy
from ...compress.model.weights import WeightSource
from ...devices.predict.caches import Place
from ...devices.predict.from_table import TablePrediction
from ...devices.predict.predict import table_of
from ...devices.predict.subject import RATES
from ...devices.predict.table_cost import NotMeasured, TableCost
from ...errors import CheckpointError, InputError
from ...runtime.session.threads import thread_budget
from ..budgets import Budget
from ..candidates import Option, Space
from ..cuts.possible import BLOCK, NONE, Cuts
from ..quantities import DECODE, DISK, ENERGY, FIRST_TOKEN, SENTENCES, TIMED
from ..solve import Table
from .products import Products, Schemes, timed_work
from .times import Times

# From a size of bundles to the next larger one; of sizes that take so nearly the same the largest stays.
_STEP, _ALIKE = 1.2, 0.99
# A block, one of its parts, how many units of that stay.
_Cut = tuple[BlockAnatomy, str, int]


def costs_of(budgets: Sequence[Budget], threads: int | None) -> dict[str, TableCost]:
    """The costs of each device that has a budget of speed, by its name: with ``threads``, or all that there
    are.
    """
    found = {}
    for name in dict.fromkeys(str(one.device) for one in budgets if one.quantity in TIMED):
        table = table_of(name)
        count = threads or (thread_budget() if name == "here" else max(table.threads, default=1))
        found[name] = TableCost(table, count)
    return found


def times_of(
    space: Space,
    source: WeightSource,
    budgets: Sequence[Budget],
    costs: Mapping[str, TableCost],
    cuts: Cuts = NONE,
) -> dict[str, Times]:
    """By the key of each budget of speed or energy, at the same sizes of bundles: from the smallest choice to
    the largest that a budget of disk leaves room for. ``cuts``: those among the options.
    """
    timed = [one for one in budgets if one.quantity in TIMED]
    devices = [_Timed(space, source, one, costs[str(one.device)]) for one in timed]
    sizes = _apart(_sizes(space, budgets), devices) if timed else []
    return {
        budget.key: Times(tuple(sizes), tuple(device.table(size, cuts) for size in sizes))
        for budget, device in zip(timed, devices, strict=True)
    }


def _sizes(space: Space, budgets: Sequence[Budget]) -> list[float]:
    """Bytes of bundles, ascending."""
    least, most = (space.shipped + fsum(of(row) for row in space.sizes) for of in (min, max))
    most = min([most, *(one.bound for one in budgets if one.quantity is DISK)])
    found = [most]
    while found[-1] / _STEP > least:
        found.append(found[-1] / _STEP)
    return found[::-1]


def _apart(sizes: Sequence[float], devices: Sequence[_Timed]) -> list[float]:
    """Those of ``sizes`` that the smallest choice takes less time with than with the next larger one,
    somewhere.
    """
    kept, taken = [sizes[-1]], [device.smallest(sizes[-1]) for device in devices]
    for size in sizes[-2::-1]:
        found = [device.smallest(size) for device in devices]
        if any(less < _ALIKE * more for less, more in zip(found, taken, strict=True)):
            kept, taken = [size, *kept], found
    return kept


class _Timed:
    """Times of the candidates ``space`` for a budget."""

    def __init__(self, space: Space, source: WeightSource, budget: Budget, cost: TableCost) -> None:
        self.space, self.source, self.cost = space, source, cost
        rate = SENTENCES if source.anatomy.kind == "encoder" else DECODE
        timed = rate if budget.quantity is ENERGY else budget.quantity
        self.products = Products(source.anatomy, cost, timed)
        self.schemes: Schemes = {
            module: min(_whole(unit.options), key=lambda option: option.size).scheme
            for unit in space.units
            for module in unit.modules
        }

    def smallest(self, size: float) -> float:
        """Seconds of the smallest options that cut nothing, in a bundle of ``size`` bytes."""
        products = self.products.of_model(self.source.anatomy, self.schemes, self.cost.place(size))
        return products + self._beside(size).seconds(self.source.anatomy)

    def table(self, size: float, cuts: Cuts) -> Table:
        """Seconds by unit and option, which add up to a pass: what it takes beside products is among those of
        the last unit, and what a cut takes away of that among those of its first.
        """
        place, beside = self.cost.place(size), self._beside(size)
        found = [self.products.of_unit(unit, place) for unit in self.space.units]
        whole = beside.seconds(self.source.anatomy)
        found[-1] = [seconds + whole for seconds in found[-1]]
        saved = Saved(self.source.anatomy, cuts, whole, beside.seconds)
        for number, kept, seconds in saved.of(self.space):
            options = self.space.units[number].options
            pairs = zip(found[number], options, strict=True)
            found[number] = [one - seconds * (option.kept == kept) for one, option in pairs]
        return found

    def _beside(self, size: float) -> Beside:
        return Beside(self.source, self.products, self.schemes, size)


def _whole(options: Sequence[Option]) -> list[Option]:
    """Those that cut nothing."""
    return [option for option in options if option.kept is None]


class Saved:
    """Of the model ``anatomy``, of which a pass takes the seconds ``beside`` products: ``whole`` with all of
    its blocks. Blocks that are alike are looked up once.
    """

    def __init__(
        self, anatomy: Anatomy, cuts: Cuts, whole: float, beside: Callable[[Anatomy], float]
    ) -> None:
        self._anatomy, self._cuts, self._whole, self._beside = anatomy, cuts, whole, beside
        self._blocks = {one.name: block for block in anatomy.blocks for one in block.linears()}
        self._known: dict[_Cut, float] = {}

    def of(self, space: Space) -> Iterator[tuple[int, int, float]]:
        """The number of a unit, how many heads or channels its options keep, and the seconds that these take
        less: of the first unit of each part that gets narrower, and of each block that goes.
        """
        met = set[tuple[int, str]]()
        for number, unit in enumerate(space.units):
            kept = {option.kept for option in unit.options if option.kept is not None}
            if not kept:
                continue
            block = self._blocks[unit.modules[0]]
            (linear,) = (one for one in block.linears() if one.name == unit.modules[0])
            item = self._cuts.item_of(linear)
            if (block.index, BLOCK) not in met and 0 in kept:
                yield number, 0, self._seconds(block, BLOCK, 0)
            if item is not None and item.key not in met:
                for count in sorted(kept - {0}):
                    yield number, count, self._seconds(block, item.part.name, count)
                met.add(item.key)
            met.add((block.index, BLOCK))

    def _seconds(self, block: BlockAnatomy, part: str, count: int) -> float:
        key = block.moved(0, 0), part, count
        if key not in self._known:
            left = [one for one in self._anatomy.blocks if one.index != block.index]
            if part != BLOCK:
                (item,) = (one for one in self._cuts.items if one.key == (block.index, part))
                narrow = item.part.narrowed(block, count)
                left = [narrow if one.index == block.index else one for one in self._anatomy.blocks]
            self._known[key] = self._whole - self._beside(replace(self._anatomy, blocks=tuple(left)))
        return self._known[key]


class _At(TableCost):
    """The costs of ``cost`` in a bundle of ``size`` bytes, whatever a graph reads of it."""

    def __init__(self, cost: TableCost, size: float) -> None:
        super().__init__(cost.table, cost.threads)
        self._fixed = cost.place(size)

    def place(self, working_set: float) -> Place:
        return self._fixed


class Beside:
    """Of the model ``source`` in a bundle of ``size`` bytes, with its linears in the ``schemes``."""

    def __init__(self, source: WeightSource, products: Products, schemes: Schemes, size: float) -> None:
        self._folder, self._products, self._schemes = source.reader.path, products, schemes
        self._size, self._cost = int(size), _At(products.cost, size)

    def seconds(self, anatomy: Anatomy) -> float:
        """Of the model ``anatomy``, or what a cut leaves of it; of a batch those of a sentence."""
        products = self._products.of_model(anatomy, self._schemes, self._cost.place(self._size))
        with suppress(CheckpointError, NotMeasured, InputError):
            return max(self._predicted(anatomy) - products, 0.0)
        return 0.0

    def _predicted(self, anatomy: Anatomy) -> float:
        """Of the whole pass."""
        chosen = dict(self._schemes)
        embedding = chosen.pop(anatomy.embedding, None)
        head = embedding if anatomy.tied or anatomy.head is None else chosen.pop(anatomy.head, None)
        schemes = {name: scheme for name, scheme in chosen.items() if scheme is not None}
        model = PlannedModel(anatomy, schemes, embedding, head)
        subject = planned_subject(model, "the smallest choice", self._folder, self._size)
        work = timed_work(anatomy)
        work.check(subject)
        prediction = TablePrediction(subject, self._cost.table, self._cost.threads, self._cost)
        values = {one.name: one.value for one in prediction.predict(work, "").quantities}
        timed = self._products.timed
        if timed is FIRST_TOKEN:
            return float(values["ttft_ms"] or 0.0) / 1e3
        rate = values["decode_tps" if timed is DECODE else RATES[subject.unit]]
        return 1 / float(rate or float("inf"))
