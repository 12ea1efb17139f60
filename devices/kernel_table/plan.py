"""What a measurement of this machine's kernels will do: the key of its table, the cases that are still to be
timed, and about how long they take.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.kernels.library import instructions
from ...runtime.session.session import onnxruntime
from ...runtime.session.threads import thread_budget
from ..processor import read_processor
from .cases import cases
from .families import done_of
from .kept import HERE, tables_of
from .stock import most_stock
from .table import KernelTable, Key, read_table

LIMIT_S = 60.0
# Of a case, about: opening a session and its passes.
CASE_S = 0.02
# Beside them: bandwidth, streams and the stock; where a measurement goes on only the stock is made again.
_BEFORE_S, _AGAIN_S = 12.0, 4.0
_OWN = "edgepress"


@dataclass(frozen=True)
class MeasurePlan:
    """Of one call; ``stock`` are the bytes of weights that it times with, at the most."""

    key: Key
    path: Path
    threads: list[int]
    cases: int
    done: int
    seconds: float
    stock: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "key": self.key.model_dump(),
            "table": str(self.path),
            "threads": self.threads,
            "cases": self.cases,
            "done": self.done,
            "seconds": self.seconds,
            "memory": 2 * self.stock,
            "disk": self.stock,
        }


def this_key() -> Key:
    """What a table of this machine holds for."""
    processor = read_processor()
    return Key(
        processor=_plain(processor.model),
        flags=list(processor.isa),
        runtime=str(onnxruntime().__version__),
        provider="cpu",
        kernels=instructions(),
    )


def _plain(text: str) -> str:
    return "".join(one for one in text if " " <= one <= "~")[:200]


def thread_counts() -> list[int]:
    """1, 2 and all."""
    return sorted({1, *(n for n in (2, thread_budget()) if n <= thread_budget())})


def wanted(key: Key) -> list[int]:
    """The cases that can be run here."""
    known = cases()
    own = key.kernels != "none"
    return [index for index, case in enumerate(known) if own or case.kind.domain != _OWN]


def stopped(path: Path) -> KernelTable | None:
    """The table of a measurement that was stopped; None where the last one was complete."""
    table = read_table(path) if path.exists() else None
    return None if table is None or table.complete else table


def plan(folder: Path | None = None, limit_s: float = LIMIT_S) -> MeasurePlan:
    """What :func:`.measure.measure_kernels` would do now."""
    key = this_key()
    path, threads = (folder or tables_of(HERE)) / f"{key.digest}.json", thread_counts()
    total, earlier = len(wanted(key)) * len(threads), stopped(path)
    done = len(done_of(earlier)) if earlier else 0
    seconds = (_AGAIN_S if done else _BEFORE_S) + CASE_S * (total - done)
    stock = (earlier.reach_bytes if earlier else 0) or most_stock()
    return MeasurePlan(key, path, threads, total, done, min(limit_s, seconds), stock)
