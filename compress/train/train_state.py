"""How a training run is to go, and how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

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
        settled: share of the steps before which a loss that leaps is no fault: the model itself changes.
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
class Course:
    """What happened: ``held_out`` are pairs of a step and the loss after it, ``tokens`` what had been learned
    from by then; the parameters of the least loss are kept. The gradient of ``skipped`` steps overflowed, in
    float16. ``stopped`` says why it ended.
    """

    step: int = 0
    held_out: list[tuple[int, float]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    retreats: int = 0
    skipped: int = 0
    recent: float = math.nan
    stopped: str = ""
    logged: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def best(self) -> tuple[int, float]:
        """The step whose parameters are kept, the earliest of equals."""
        return min(self.held_out, key=lambda pair: pair[1])
