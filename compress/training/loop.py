"""The training loop of every pass that learns: AdamW (Loshchilov, Hutter 2017, arXiv 1711.05101), warm-up and
cosine, clipped gradients, a held-out loss that decides what is kept.

It knows nothing about models: it is given parameters, a function that adds the gradient of one piece, and
one that measures the held-out loss. The state is saved at every measurement; a killed run goes on from the
last one and ends with the same bytes. A loss that is not finite, or leaps, takes it back there with half the
learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ...storage import write_atomic
from ...terminal import Progress
from .pieces import Piece

_LEAP = 5.0  # a loss so many times the recent mean is a leap
_RETREATS = 3
_RECENT = 0.9  # weight of the past in the recent mean
_LAST_RATE = 0.1  # share of the learning rate that is left at the end


@dataclass(frozen=True)
class LoopSettings:
    """How to learn.

    Attributes:
        state: the file that a killed run is continued from.
        epochs: times that every piece is learned from.
        batch_tokens: tokens of a step, at least.
        warmup: share of the steps in which the learning rate rises.
        clip: largest norm of the gradient of all parameters.
        measurements: of the held-out loss, after the first.
    """

    state: Path
    learning_rate: float
    epochs: int
    batch_tokens: int
    seed: int = 0
    warmup: float = 0.1
    clip: float = 1.0
    measurements: int = 6


@dataclass
class Course:
    """What happened: ``held_out`` are pairs of a step and the loss after it; the least one is kept."""

    step: int = 0
    held_out: list[tuple[int, float]] = field(default_factory=list)
    retreats: int = 0
    recent: float = math.nan

    @property
    def best(self) -> tuple[int, float]:
        """The step whose parameters are kept, the earliest of equals."""
        return min(self.held_out, key=lambda pair: pair[1])


class Loop:
    """Learns ``parameters`` from ``pieces``.

    Args:
        learn: adds the gradient of ``share`` times the summed loss of a piece, and returns the sum.
        measure: the mean held-out loss a token, with the parameters as they are.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        pieces: Sequence[Piece],
        learn: Callable[[Piece, float], float],
        measure: Callable[[], float],
        settings: LoopSettings,
    ) -> None:
        self.parameters, self.pieces, self.settings = list(parameters), pieces, settings
        self.learn, self.measure = learn, measure
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.best: list[Tensor] = []
        self.course = Course()
        self.steps = [batch for epoch in range(settings.epochs) for batch in self._epoch(epoch)]

    def _epoch(self, epoch: int) -> Iterator[list[Piece]]:
        """The pieces in an order of their own, as batches."""
        generator = torch.Generator().manual_seed(1_000_003 * self.settings.seed + epoch)
        batch: list[Piece] = []
        for index in torch.randperm(len(self.pieces), generator=generator).tolist():
            batch.append(self.pieces[index])
            if sum(piece.tokens for piece in batch) >= self.settings.batch_tokens:
                yield batch
                batch = []
        if batch:
            yield batch

    def run(self, progress: Progress) -> Course:
        """Learn; the parameters are then those with the least held-out loss.

        Raises:
            TrainingError: the loss is not finite before anything was learned.
        """
        if self.settings.state.exists():
            self._restore()
            progress.note(f"continuing after step {self.course.step} of {len(self.steps)}")
        else:
            self._measure()
        every = max(1, len(self.steps) // self.settings.measurements)
        with progress.task("tuning", len(self.steps)) as task:
            task.advance(self.course.step)
            while self.course.step < len(self.steps):
                if not self._step(self.steps[self.course.step]):
                    if not self._retreat(progress):
                        break
                    continue
                task.advance(1, f"loss {self.course.recent:.4g}, held out {self.course.held_out[-1][1]:.4g}")
                if self.course.step % every == 0 or self.course.step == len(self.steps):
                    self._measure()
        self._assign(self.best)
        return self.course

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, counted from 0."""
        settings, total = self.settings, len(self.steps)
        warm = max(1, round(settings.warmup * total))
        risen = min(1.0, (step + 1) / warm)
        fallen = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, total - warm)))
        share = risen * (_LAST_RATE + (1 - _LAST_RATE) * fallen)
        return settings.learning_rate * share * 0.5**self.course.retreats

    def _step(self, batch: Sequence[Piece]) -> bool:
        """One step; False, with nothing changed, when the loss or its gradient is out of hand."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.course.step)
        self.optimizer.zero_grad()
        tokens = sum(piece.tokens for piece in batch)
        loss = sum(self.learn(piece, 1 / tokens) for piece in batch) / tokens
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip))
        recent = loss if math.isnan(self.course.recent) else self.course.recent
        if not math.isfinite(loss) or not math.isfinite(norm) or loss > _LEAP * recent + 1e-3:
            return False
        self.optimizer.step()
        self.course.recent = _RECENT * recent + (1 - _RECENT) * loss
        self.course.step += 1
        return True

    def _retreat(self, progress: Progress) -> bool:
        """Go back to the last measurement with half the learning rate; False after too many times."""
        retreats, step = self.course.retreats + 1, self.course.step
        self._restore()
        self.course.retreats = retreats
        progress.note(f"the loss left its course at step {step}: back to step {self.course.step}")
        return retreats <= _RETREATS

    def _measure(self) -> None:
        loss = self.measure()
        if not math.isfinite(loss):
            if not self.course.held_out:
                raise TrainingError(
                    "the loss of the model is not finite before anything is learned",
                    fix="check the model with `edgepress inspect`; give other calibration text",
                )
            loss = math.inf
        self.course.held_out.append((self.course.step, loss))
        if self.course.best[0] == self.course.step:
            self.best = [parameter.detach().clone() for parameter in self.parameters]
        self._save()

    def _assign(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    def _save(self) -> None:
        data: dict[str, Any] = {
            "course": asdict(self.course),
            "parameters": [parameter.detach() for parameter in self.parameters],
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = BytesIO()
        torch.save(data, buffer)
        write_atomic(self.settings.state, buffer.getvalue())

    def _restore(self) -> None:
        data = torch.load(self.settings.state, weights_only=True)
        self.course, self.best = Course(**data["course"]), data["best"]
        self._assign(data["parameters"])
        self.optimizer.load_state_dict(data["optimizer"])
