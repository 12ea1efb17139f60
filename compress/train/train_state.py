"""How a training run is to go and how it goes: its settings, its state, where that is saved, and its log.

The state is on disk whole or not at all, and a killed run goes on from it. Where a model is spread, each
process keeps the state of its rows in a file of its own. The first one's is written last and says which step
the others are of, so that a kill at any moment leaves a step that all have.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ...errors import TrainingError
from ..pipeline.journal import append_seal, ends_with_seal
from ..pipeline.processes import Processes

_LAST = 0.1  # share of the learning rate that a cosine leaves at the end
_SECOND = 2 / 3  # the second stage's learning rate beside the first one's

Schedule = Literal["cosine", "two_stages"]


@dataclass(frozen=True)
class LoopSettings:
    """How to learn.

    Attributes:
        state: the file that a killed run is continued from; ``log``: one JSON line a step and measurement.
        tokens: the budget; micro-batches come again, in another order, until it is spent.
        batch_tokens: tokens of a step, at least.
        warmup: share of the steps in which the learning rate rises.
        clip: largest norm of the gradient of all parameters.
        measurements: of the held-out loss, after the first.
        patience: measurements in a row without a new best one that end it; None goes on.
        settled: fraction of the steps before which a loss spike is no fault: the model itself changes.
        max_seconds: of learning, over all runs of a resumed one; None is no limit.
        schedule: after the warm-up the rate falls as a cosine, to a tenth; or in ``two_stages``, each a line
            to zero at the end, the second one a third lower and without weight decay.
        weight_decay: share of the weights that goes in a step, times the learning rate.
        ema: weight of the past in the average of the parameters that is kept; 0 keeps them as they are.
    """

    state: Path
    log: Path
    learning_rate: float
    tokens: int
    batch_tokens: int
    seed: int = 0
    warmup: float = 0.1
    clip: float = 1.0
    measurements: int = 6
    patience: int | None = None
    settled: float = 0.0
    max_seconds: float | None = None
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    ema: float = 0.0

    def share(self, step: int, total: int) -> float:
        """Which share of the learning rate the step ``step`` of ``total``, counted from 0, has."""
        warm = max(1, round(self.warmup * total))
        risen = min(1.0, (step + 1) / warm)
        if self.schedule == "two_stages":
            return risen * (1 - step / total) * (_SECOND if self._late(step / total) else 1.0)
        fallen = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, total - warm)))
        return risen * (_LAST + (1 - _LAST) * fallen)

    def decay(self, done: float) -> float:
        """The weight decay when such a share of the steps is done."""
        return 0.0 if self._late(done) else self.weight_decay

    def _late(self, done: float) -> bool:
        return self.schedule == "two_stages" and done >= 0.5

    def but(self, **changes: Any) -> LoopSettings:
        """The same with some of it changed."""
        return replace(self, **changes)


@dataclass
class TrainState:
    """What happened: ``held_out`` are pairs of a step and the loss after it, ``tokens`` what had been learned
    from by then; the parameters of the least loss are kept. The gradient of ``skipped`` steps overflowed, in
    float16. ``stopped`` says why it ended.
    """

    step: int = 0
    held_out: list[tuple[int, float]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rollbacks: int = 0
    skipped: int = 0
    recent: float = math.nan
    stopped: str = ""
    logged: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def best(self) -> tuple[int, float]:
        """The step whose parameters are kept, the earliest of equals."""
        return min(self.held_out, key=lambda pair: pair[1])


class Saved:
    """The state at ``path``, and of other processes beside it."""

    def __init__(self, path: Path, processes: Processes) -> None:
        self.path, self.processes = path, processes

    def exists(self) -> bool:
        """Whether there is one, as it was written, as the first process sees it."""
        return self.processes.agree(ends_with_seal(self.path))

    def _own(self, step: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{self.processes.index}.{step}")

    @property
    def _holders(self) -> int:
        return self.processes.count if self.processes.sharded else 1

    def write(self, step: int, data: dict[str, Any]) -> None:
        """Keep ``data``, tensors and plain values, in the place of what is there."""
        if self.processes.sharded:
            if not self.processes.first:
                _write(self._own(step), data)
            self.processes.meet()
        if self.processes.first:
            _write(self.path, data | {"holders": self._holders})
        if self.processes.sharded:
            self.processes.meet()
            for older in self.path.parent.glob(self._own(step).stem + ".*"):
                if older != self._own(step):
                    older.unlink()

    def read(self) -> dict[str, Any]:
        """What was kept last, its tensors on the CPU: another process may have written them from its own
        GPU.
        """
        data: dict[str, Any] = {}
        if self.processes.first or not self.processes.sharded:
            data = _read(self.path)
        kept = self.processes.agree((data.get("holders", 1), data["train_state"]["step"]) if data else None)
        assert kept is not None
        holders, step = kept
        if holders != self._holders:
            raise TrainingError(
                f"this run was begun by {holders} processes, and cannot go on with {self._holders}",
                why="where a model is spread over processes (FSDP), each keeps the state of its part",
                fix="launch it as it was, or begin again with --restart",
            )
        return data or _read(self._own(step))


def _read(path: Path) -> dict[str, Any]:
    if not ends_with_seal(path):
        raise TrainingError(
            f"the saved state of a training {path} is not as it was written",
            why="its hash is another: the file was changed, cut short or removed",
            fix="begin again with --restart",
        )
    data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb+") as stream:
        torch.save(data, stream)
        append_seal(stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


class Log:
    """Appends lines to the file at ``path``, if it ``writes``: of several processes one does."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, size: int) -> None:
        """Keep the first ``size`` bytes."""
        if self.writes and self.size > size:
            os.truncate(self.path, size)

    def write(self, **entries: float) -> None:
        """Add a line; numbers that are not finite are null."""
        if not self.writes:
            return
        line = {
            name: value if isinstance(value, int) or math.isfinite(value) else None
            for name, value in entries.items()
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
