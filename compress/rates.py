"""How fast this machine does each kind of work that a plan counts: measured in a second or two, and kept in
the user's cache, so that the same command has the same plan.
"""

import argparse
import hashlib
import inspect
import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import cycle

import torch
from torch.nn.functional import linear

from .. import __version__
from ..files.storage import cache_directory, sha256_json
from ..runtime.session.cpu_features import first_processor
from .numbers.grid import fit_grid, grids_tried
from .numbers.scheme import Scheme
from .pipeline.advance import Work
from .pipeline.journal import read_sealed, write_sealed
from .solve.column_recursion import quantize_in_order
from .solve.damped_cholesky import factorize

_SCHEME = Scheme.parse("W4A16-g64")
_SIDE, _ROWS, _WIDE = 512, 2048, 128  # of the matrices that are worked on
# Tokens and layers of the products: more layers than the processor's cache holds, as in a model.
_TOKENS, _LAYERS, _OUT, _IN = 256, 4, 2048, 1024
# Bytes of bfloat16 that are read, hashed and made float32: so many that the memory for them is new every
# time, which on many a machine takes longer than what is written into it.
_STORED = 16 << 20
# Starting is about as much Python as compiling the module argparse so many times: importing torch and
# transformers and making a model's modules takes 5.6 s where that takes 6.2 ms.
_START = 900
# Repeats of each kind at least, and seconds for it: the fastest counts, which other work disturbs least.
_REPEATS, _SECONDS = 3, 0.1
_IDLE = 0.8  # the share of its processors above which a machine is not busy
# Of a thread's rate that each further thread adds. All kinds are measured with one thread: the others of a
# busy machine wait for each other, and what they give then is no rate of the machine's.
_FURTHER = 0.8


@dataclass(frozen=True)
class Rates:
    """A second's worth of each kind of :class:`~edgepress.compress.pipeline.advance.Work`. ``start``: seconds
    until torch, transformers and a model's modules are there. ``share``: of the processors that this process
    got while it measured.
    """

    products: float
    factors: float
    columns: float
    entries: float
    roundings: float
    stored: float
    start: float
    share: float = 1.0

    def seconds(self, work: Work) -> float:
        """How long ``work`` takes, the start left out."""
        rates = asdict(self)
        return float(sum(amount / rates[kind] for kind, amount in asdict(work).items()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it where the machine is busy."""
        if self.share >= _IDLE:
            return ()
        taken = f"other work takes {100 * (1 - self.share):.0f} % of its processors"
        return (f"this machine is busy: {taken}; the time is for an idle one",)


def measured_rates() -> Rates:
    """The rates of this machine, from the cache where it has them; the share is always of this minute."""
    path = cache_directory() / "rates" / f"{_machine()}.json"
    if (kept := read_sealed(path)) is not None:
        return Rates(**{**kept, "share": _share()})
    found = measure()
    with suppress(OSError):  # the next one measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, asdict(found))
    return found


def _machine() -> str:
    """What the rates depend on."""
    processor = first_processor()
    names = [processor[name] for name in ("model name", "CPU part", "flags") if name in processor]
    known = [names or platform.processor(), platform.machine(), torch.get_num_threads(), _FURTHER]
    kinds = [kind.name for kind in fields(Rates)]
    return sha256_json([*known, kinds, torch.__version__, __version__])[:16]


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

    products = _products()
    factors = _SIDE**3 / _fastest(lambda: factorize(gram, 0.01))
    few, many = _fastest(recursion(16)), _fastest(recursion(_ROWS))
    rounding = _fastest(lambda: fit_grid(weight, _SCHEME))
    far = _ROWS * _WIDE**2 / 2 / products  # products of the larger recursion, which count as such
    return Rates(
        products=products,
        factors=factors,
        columns=_WIDE / few,
        entries=_ROWS * _WIDE / max(many - few - far, 0.2 * many),
        roundings=_ROWS * _WIDE * grids_tried(_SCHEME) / rounding,
        stored=_STORED / _fastest(_read_stored(bytes(_STORED))),
        start=_START * _fastest(_compile),
    )


def _products() -> float:
    """Multiply-adds a second of layers ``[out, in]`` one after another."""
    rows = torch.ones(_TOKENS, _IN)
    layers = cycle([torch.ones(_OUT, _IN) for _ in range(_LAYERS)])
    return _TOKENS * _OUT * _IN / _fastest(lambda: linear(rows, next(layers)))


def _read_stored(data: bytes) -> Callable[[], object]:
    """What reads a weight of ``data``: its hash, a copy, and the float32 of it."""
    weight = torch.zeros(len(data) // 2, dtype=torch.bfloat16)
    return lambda: (hashlib.sha256(data).digest(), weight.clone(), weight.float())


def _compile() -> object:
    """Work of Python's, of which starting consists."""
    return compile(inspect.getsource(argparse), "argparse", "exec")


def _share() -> float:
    """The share of one processor that this thread gets, as it was when this minute was first asked about: a
    run that compresses and exports many times looks once.
    """
    return _share_in(int(time.monotonic() // 60))


@lru_cache(maxsize=1)
def _share_in(minute: int) -> float:
    """The same, looked at now for a twentieth of a second."""
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
