"""``Caches``: what a graph finds in a machine's caches, by the bytes that it reads, from its kernel table."""

import bisect
import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from ..kernel_table.chain import NEAR_BYTES
from ..kernel_table.operation import STREAMED
from ..kernel_table.table import KernelTable, Reading, Streamed

Curve = list[tuple[int, float]]


class Place(NamedTuple):
    """What a graph finds in the caches.

    Attributes:
        distance: of its weights from a core: 0 near, 1 far.
        lost: how much of what is small (code, caches of keys, numbers of norms) was driven out of the caches
            since the run before: 0 nothing, 1 all.
        call: seconds of Python for a run.
        late: seconds that a product among many others takes longer than one of a small graph from memory,
            once all that is small was driven out.
    """

    distance: float
    lost: float
    call: float = 0.0
    late: float = 0.0


class Caches:
    """Of the machine of ``table`` with so many ``threads``.

    Attributes:
        bandwidth: bytes per second by working set; of a table without any, empty.
        cold: seconds that a small node takes longer when its code has left the caches.
        spread: of the rates from memory while the table was made, as a part of their middle.
    """

    def __init__(self, table: KernelTable, threads: int) -> None:
        self.bandwidth = _medians(table.bandwidth, threads, "bytes_per_second")
        self._streams = _medians(table.streams, threads, "bytes_per_second")
        self._tokens = _medians(table.streams, threads, "token")
        between = [seconds for _, seconds in _medians(table.streams, threads, "between")]
        self.cold = max(median(between[len(between) // 2 :]) - between[0], 0.0) if between else 0.0
        self.spread = _spread(table.streams, threads)
        self._reach = table.reach_bytes

    def place(self, working_set: float, near: float, far: float, call: float) -> Place:
        """Of a graph that reads so many bytes.

        Args:
            near, far: seconds of the product that streams are made of, in a small graph; 0 where it was not
                measured.
            call: seconds of Python for a run, where no streams say it.
        """
        if not self._streams or not far:
            sizes = (NEAR_BYTES, self._reach, working_set)
            distance = min(share(*(1 / interpolated(self.bandwidth, size) for size in sizes)), 1.0)
            return Place(distance, distance, call)
        hot, cold = self._tokens[0][1], self._tokens[-1][1]
        call = interpolated(self._tokens, working_set)
        lost = min(share(hot, cold, call), 1.0)
        late = max(STREAMED.read / self._streams[-1][1] - far, 0.0)
        here = STREAMED.read / interpolated(self._streams, working_set) - lost * late
        return Place(min(share(near, far, here), 1.0), lost, call, late)


def _medians(readings: Iterable[Reading], threads: int, name: str) -> list[tuple[int, float]]:
    """By working set, in order: the median of what was read at several moments."""
    found: dict[int, list[float]] = {}
    for one in readings:
        if one.threads == threads:
            found.setdefault(one.working_set, []).append(getattr(one, name))
    return [(size, median(values)) for size, values in sorted(found.items())]


def _spread(streams: Sequence[Streamed], threads: int) -> float:
    """Of the rates from memory at several moments: half of what eight in ten are within, as a part of their
    middle.
    """
    found = [one for one in streams if one.threads == threads]
    most = max((one.working_set for one in found), default=0)
    rates = sorted(one.bytes_per_second for one in found if one.working_set == most)
    edge = len(rates) // 10
    return (rates[-1 - edge] - rates[edge]) / 2 / median(rates) if rates else 0.0


def share(first: float, last: float, here: float) -> float:
    """Where ``here`` stands from ``first`` to ``last``: 0 before it, beyond 1 behind."""
    return max((here - first) / (last - first), 0.0) if last > first else 1.0


def interpolated(curve: Sequence[tuple[float, float]], working_set: float) -> float:
    """The value of ``curve`` at a working set of so many bytes, by logarithms between those measured."""
    logs = [math.log(max(size, 1)) for size, _ in curve]
    place = neighbours(logs, math.log(max(working_set, 1)))
    return math.exp(sum(share * math.log(curve[index][1]) for index, share in place))


def neighbours(logs: Sequence[float], at: float) -> list[tuple[int, float]]:
    """The two neighbours of ``at`` with their shares."""
    above = bisect.bisect_left(logs, at)
    if above == 0:
        return [(0, 1.0)]
    if above == len(logs):
        return [(len(logs) - 1, 1.0)]
    share = (at - logs[above - 1]) / (logs[above] - logs[above - 1])
    return [(above - 1, 1 - share), (above, share)]
