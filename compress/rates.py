"""How fast this machine does each kind of work that a plan counts: measured in under a second, and kept in
the user's cache, so that the same command has the same plan.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .. import __version__
from ..storage import cache_directory, sha256_json, write_atomic
from .numbers.grid import fit_grid, grids_tried
from .numbers.scheme import Scheme
from .pipeline.advance import Work
from .solve.column_recursion import quantize_in_order
from .solve.damped_cholesky import factorize

_SCHEME = Scheme.parse("W4A16-g64")
_SIDE, _ROWS, _WIDE = 512, 2048, 128  # of the matrices that are worked on
# Repeats of each kind at least, and seconds for it: the fastest counts, which other work disturbs least.
_REPEATS, _SECONDS = 3, 0.1
_IDLE = 0.8  # the share of its processors above which a machine is not busy
# Of a thread's rate that each further thread adds. All kinds are measured with one thread: the others of a
# busy machine wait for each other, and what they give then is no rate of the machine's.
_FURTHER = 0.8


@dataclass(frozen=True)
class Rates:
    """A second's worth of each kind of :class:`~edgepress.compress.pipeline.advance.Work`, and bytes read and
    hashed. ``share``: of the processors that this process got while it measured.
    """

    products: float
    factors: float
    columns: float
    entries: float
    roundings: float
    hashed: float
    share: float = 1.0

    def seconds(self, work: Work, hashed: float = 0.0) -> float:
        """How long ``work`` takes, and hashing so many bytes."""
        rates = asdict(self)
        done = {**asdict(work), "hashed": hashed}
        return float(sum(amount / rates[kind] for kind, amount in done.items()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it where the machine is busy."""
        if self.share >= _IDLE:
            return ()
        taken = f"other work takes {100 * (1 - self.share):.0f} % of its processors"
        return (f"this machine is busy: {taken}; the time is for an idle one",)


def measured_rates() -> Rates:
    """The rates of this machine, from the cache where it has them; the share is always of now."""
    path = cache_directory() / "rates" / f"{_machine()}.json"
    try:
        kept = Rates(**{name: float(value) for name, value in json.loads(path.read_bytes()).items()})
    except (OSError, ValueError, TypeError):
        kept = None
    if kept is None:
        found = measure()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(asdict(found)).encode())
        except OSError:
            return found  # the next one measures again
        return found
    return Rates(**{**asdict(kept), "share": _share()})


def _machine() -> str:
    """What the rates depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line for line in lines if line.startswith(("model name", "CPU part", "flags"))][:2]
    known = [names or platform.processor(), platform.machine(), torch.get_num_threads(), _FURTHER]
    return sha256_json([*known, torch.__version__, __version__])[:16]


def measure() -> Rates:
    """Measure all kinds of work, now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = _of_one_thread()
    finally:
        torch.set_num_threads(threads)
    shared = {"products", "factors", "entries", "roundings"}
    more = 1 + (threads - 1) * _FURTHER
    rates = {name: rate * (more if name in shared else 1.0) for name, rate in asdict(one).items()}
    return Rates(**{**rates, "share": _share()})


def _of_one_thread() -> Rates:
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(_SIDE, _SIDE, generator=generator)
    weight = torch.randn(_ROWS, _WIDE, generator=generator)
    gram = square.T @ square / _SIDE
    part = weight.T @ weight / _ROWS
    factor, grid, order = factorize(part, 0.01), fit_grid(weight, _SCHEME), torch.arange(_WIDE)
    assert factor is not None

    def recursion(rows: int) -> Callable[[], object]:
        return lambda: quantize_in_order(weight[:rows], grid[0][:rows], None, factor, order, _SCHEME)

    data = bytes(2 << 20)
    product = _fastest(lambda: square @ square)
    factors = _fastest(lambda: factorize(gram, 0.01))
    few, many = _fastest(recursion(16)), _fastest(recursion(_ROWS))
    rounding = _fastest(lambda: fit_grid(weight, _SCHEME))
    hashing = _fastest(lambda: hashlib.sha256(data).digest())
    far = _ROWS * _WIDE**2 / 2 * product / _SIDE**3  # products of the larger recursion, which count as such
    return Rates(
        products=_SIDE**3 / product,
        factors=_SIDE**3 / factors,
        columns=_WIDE / few,
        entries=_ROWS * _WIDE / max(many - few - far, 0.2 * many),
        roundings=_ROWS * _WIDE * grids_tried(_SCHEME) / rounding,
        hashed=len(data) / hashing,
    )


def _share() -> float:
    """The share of one processor that this thread gets, looked at for a twentieth of a second."""
    data, busy, begun = bytes(1 << 18), time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - begun) < 0.05:
        hashlib.sha256(data).digest()
    return min(1.0, (time.process_time() - busy) / passed)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs, when nothing else runs: time of the processor, in which other work
    does not count.
    """
    best, begun, count = math.inf, time.perf_counter(), 0
    while count < _REPEATS or time.perf_counter() - begun < _SECONDS:
        start = time.process_time()
        run()
        best, count = min(best, time.process_time() - start), count + 1
    return best
