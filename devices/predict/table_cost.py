"""``TableCost``: seconds of an operation on a machine, looked up in its kernel table.

Seconds = max(bytes ÷ bandwidth, multiply-adds ÷ peak) ÷ efficiency + the cost of a node. The efficiency is
interpolated between the sizes that were measured, linearly in their logarithms. It is never extrapolated: a
size beyond the table has the efficiency at its edge, and that is said; an operator that was not measured is
refused.

Where weights lie matters to what few rows do: the operation is looked up near (in the core's own cache) and
far (in memory), and stands between the two as a product stands there among so many others as the graph reads
bytes of. What is small, and so not read ahead, is driven out of the caches sooner, as Python's own code is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

from ...errors import InputError
from ...files.limits import threads_in_words
from ..kernel_table.chain import NEAR_BYTES
from ..kernel_table.operation import AXES, STREAMED, Operation
from ..kernel_table.table import Family, KernelTable
from .caches import Caches, Place, interpolated, neighbours

_TABLE_EDGE = 1.02  # how far beyond an edge is still on it
_SMALLEST_SHARE = 0.05  # of a measured time that is not the node's cost


class NotMeasured(InputError):
    """The table has nothing of the kind."""

    code = "E-NOT-MEASURED"
    way_out = "measure again with this version of edgepress: edgepress devices measure"


class Grid:
    """A family as efficiencies on a grid of sizes."""

    def __init__(self, family: Family, bandwidth: float, peak: float, node: float) -> None:
        self.axes = [sorted(set(axis)) for axis in zip(*family.sizes, strict=True)]
        self._logs = [[math.log(size) for size in axis] for axis in self.axes]
        self._values: dict[tuple[int, ...], float] = {}
        amounts = zip(family.sizes, family.read, family.moved, family.work, family.seconds, strict=True)
        for sizes, read, moved, work, seconds in amounts:
            roof = roof_seconds(read, moved, work, bandwidth, peak)
            own = max(seconds - node, _SMALLEST_SHARE * seconds)
            self._values[tuple(sizes)] = math.log(own / roof)

    def slowness(self, sizes: Sequence[int]) -> float:
        """One over the efficiency at ``sizes``, at the edge where they lie beyond it."""
        corners = [neighbours(logs, math.log(size)) for logs, size in zip(self._logs, sizes, strict=True)]
        total = 0.0
        for choice in product(*corners):
            weight = math.prod(share for _, share in choice)
            if weight:
                key = tuple(axis[index] for axis, (index, _) in zip(self.axes, choice, strict=True))
                total += weight * self._values[key]
        return math.exp(total)

    def outside(self, names: Sequence[str], sizes: Sequence[int]) -> list[tuple[int, tuple[str, int, int]]]:
        """What of ``sizes`` lies beyond the table: each with its axis, and what was measured along that."""
        return [
            (size, (name, axis[0], axis[-1]))
            for name, size, axis in zip(names, sizes, self.axes, strict=True)
            if len(axis) > 1 and not axis[0] / _TABLE_EDGE <= size <= axis[-1] * _TABLE_EDGE
        ]


def roof_seconds(read: int, moved: int, work: int, bandwidth: float, peak: float) -> float:
    """What no kernel can be faster than; what is moved counts where nothing else does."""
    return max((read or moved) / bandwidth, work / peak if work else 0.0, 1e-12)


Found = tuple[Grid, Grid | None]


class TableCost:
    """Costs on the machine of ``table`` with so many ``threads``."""

    def __init__(self, table: KernelTable, threads: int) -> None:
        fixed = [one for one in table.fixed if one.threads == threads]
        self.caches = Caches(table, threads)
        if not fixed or not self.caches.bandwidth:
            raise NotMeasured(
                f"the table of {table.machine} has no measurement with {threads_in_words(threads)}",
                why=f"measured: {', '.join(map(str, table.threads)) or 'none'}",
                fix="take one of these with --threads, or measure again: edgepress devices measure",
            )
        self.table = table
        self._stopped = "" if table.complete else table.made_by
        self.fixed, self.threads = fixed[0], threads
        self.near, self.far = self.bandwidth(NEAR_BYTES), self.bandwidth(table.reach_bytes)
        self._families = {
            (one.op, one.form, tuple(one.features), one.kind, one.reach): one
            for one in table.families
            if one.threads == threads and one.whole
        }
        self._peaks: dict[tuple[str, str, str], float] = {}
        for one in self._families.values():
            rates = [work / seconds for work, seconds in zip(one.work, one.seconds, strict=True)]
            key = _peak_key(one.op, one.form, one.kind)
            self._peaks[key] = max(self._peaks.get(key, 1.0), *rates)
        self._grids: dict[tuple[str, str, tuple[str, ...], str], Found] = {}
        self._notes: dict[str, None] = {}
        self._beyond: dict[tuple[str, int, int], tuple[set[int], set[str]]] = {}
        self._cached = lru_cache(maxsize=1 << 16)(self._ends)

    @property
    def notes(self) -> list[str]:
        """What lay beyond the table, so far: a sentence for each axis and what was measured along it."""
        said = [
            f"{axis} {', '.join(f'{size:,}' for size in sorted(sizes))} of {', '.join(sorted(ops))} "
            f"(measured {first:,} to {last:,})"
            for (axis, first, last), (sizes, ops) in self._beyond.items()
        ]
        return [*said, *self._notes]

    def bandwidth(self, working_set: float) -> float:
        """Bytes per second, interpolated; at the edge of what was measured beyond it."""
        return interpolated(self.caches.bandwidth, working_set)

    def place(self, working_set: float) -> Place:
        """What a graph that reads so many bytes finds in the caches."""
        key = (STREAMED.op, STREAMED.form, STREAMED.features, STREAMED.kind)
        known = all((*key, reach) in self._families for reach in ("near", "far"))
        near, far = self._cached(STREAMED) if known else (0.0, 0.0)
        return self.caches.place(working_set, near, far, self.fixed.call)

    def seconds(self, operation: Operation, place: Place) -> float:
        """Of one execution."""
        near, far = self._cached(operation)
        if operation.kind in ("product", "head"):
            waits = place.distance * max(far - near, 0.0) + place.lost * place.late
            return near + waits + self.fixed.node
        return near + place.lost * max(far - near, 0.0) + self.small_node(place)

    def small_node(self, place: Place) -> float:
        """Seconds of a node beside its kernel, whose code no weights are streamed by."""
        return self.fixed.node + place.lost * self.caches.cold

    def total(self, operations: Iterable[tuple[Operation, int]], place: Place) -> float:
        """Of operations with their counts."""
        return sum(count * self.seconds(one, place) for one, count in operations)

    def _ends(self, operation: Operation) -> tuple[float, float]:
        """Seconds near and far, without the cost of the node."""
        near, edge = self._at(operation, "near"), self._few_rows(operation)
        if edge is operation:
            return near, self._at(operation, "far")
        # Many rows wait for their weights as long as the most that were measured from afar, and then compute.
        return near, near + max(self._at(edge, "far") - self._at(edge, "near"), 0.0)

    def _few_rows(self, operation: Operation) -> Operation:
        """The operation with the most rows that were measured from afar, if it has more."""
        far = self._found(operation, ())[1]
        if far is None or operation.kind not in ("product", "head"):
            return operation
        rows, most = operation.sizes[0], far.axes[0][-1]
        if rows <= most:
            return operation
        moved, work = operation.moved * most // rows, operation.work * most // rows
        return replace(operation, sizes=(most, *operation.sizes[1:]), moved=moved, work=work)

    def _at(self, operation: Operation, reach: str) -> float:
        found = self._found(operation, ())
        grid = found[0] if reach == "near" or found[1] is None else found[1]
        bandwidth = self.near if grid is found[0] else self.far
        slowness = grid.slowness(operation.sizes)
        if reach == "near":
            for size, axis in grid.outside(AXES[operation.kind], operation.sizes):
                sizes, ops = self._beyond.setdefault(axis, (set(), set()))
                sizes.add(size)
                ops.add(operation.op)
        for feature in operation.features:
            slowness *= self._variation(operation, feature, reach)
        peak = self._peaks[_peak_key(operation.op, operation.form, operation.kind)]
        return slowness * roof_seconds(operation.read, operation.moved, operation.work, bandwidth, peak)

    def _variation(self, operation: Operation, feature: str, reach: str) -> float:
        """How much slower a feature makes the operation, measured where its own family was."""
        operation = replace(operation, kind="product") if operation.kind == "head" else operation
        try:
            plain, varied = self._found(operation, ()), self._found(operation, (feature,))
        except NotMeasured:
            self._notes[f"{operation.op} of {operation.form}: {feature} was not measured"] = None
            return 1.0
        index = 1 if reach == "far" and plain[1] is not None and varied[1] is not None else 0
        ours, theirs = varied[index], plain[index]
        assert ours is not None and theirs is not None
        inside = [
            min(max(size, axis[0]), axis[-1]) for size, axis in zip(operation.sizes, ours.axes, strict=True)
        ]
        return ours.slowness(inside) / theirs.slowness(inside)

    def _found(self, operation: Operation, features: tuple[str, ...]) -> Found:
        key = (operation.op, operation.form, features, operation.kind)
        if key not in self._grids:
            near = self._families.get((*key, "near"))
            if near is None:
                nearest = self._nearest_form(operation, features)
                self._grids[key] = self._found(nearest, features)
                return self._grids[key]
            far, peak = self._families.get((*key, "far")), self._peaks[_peak_key(key[0], key[1], key[3])]
            node = self.fixed.node
            self._grids[key] = (
                Grid(near, self.near, peak, node),
                None if far is None else Grid(far, self.far, peak, node),
            )
        return self._grids[key]

    def _nearest_form(self, operation: Operation, features: tuple[str, ...]) -> Operation:
        """The measured shape of heads that is most like an attention's, which is said."""
        cache, _, shape = operation.form.partition(", ")
        forms = {
            form
            for op, form, feature, kind, reach in self._families
            if (op, feature, kind, reach) == (operation.op, features, operation.kind, "near")
            and form.partition(", ")[0] == cache
            and shape
        }
        if not forms:
            wanted = " ".join([operation.op, operation.form, *features]).strip()
            raise NotMeasured(
                f"the kernel table has no {wanted} with {threads_in_words(self.threads)}",
                why="its measurement was stopped before it was complete" if self._stopped else "",
                fix=self._stopped and f"go on with it: {self._stopped}",
            )
        best = min(forms, key=lambda form: (_unlike(form, operation.form), form))
        self._notes[f"{operation.op} of {operation.form}: as {best}, the nearest that was measured"] = None
        return replace(operation, form=best)


def _peak_key(op: str, form: str, kind: str) -> tuple[str, str, str]:
    """Shapes of heads share a peak: what is of one shape may wait for memory where another computes."""
    return op, form.partition(",")[0], kind


def _unlike(one: str, other: str) -> float:
    """How unlike two shapes of attention are: the numbers in their forms, as ratios."""
    words = [form.replace(",", "").split() for form in (one, other)]
    numbers = [[int(word) for word in found if word.isdecimal()] for found in words]
    return sum(abs(math.log(a / b)) for a, b in zip(*numbers, strict=False))
