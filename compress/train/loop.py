"""The training loop of every pass that learns: AdamW (Loshchilov, Hutter 2017, arXiv 1711.05101), warm-up and
cosine, clipped gradients, a held-out loss that decides what is kept.

It knows nothing about models: it is given parameters, a function that adds the gradient of one micro-batch,
and one that measures the held-out loss. It ends when the budget of tokens or of time is spent, or when the
held-out loss no longer falls. The state is saved at every measurement; a killed run goes on from the last one
and ends with the same bytes. A loss that is not finite, or spikes, takes it back there with half the learning
rate; where losses are scaled, a gradient that overflows only passes over its step. Of several processes each
learns from its share of every step.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ...terminal.progress import Progress
from ..pipeline.processes import ALONE, Processes
from ..text.micro_batches import MicroBatch
from .optimization import Average, Gradients, LossScale, assign
from .train_state import Log, LoopSettings, Saved, TrainState

_SPIKE = 5.0  # a loss so many times the recent mean is a loss spike
_MOST_ROLLBACKS = 3
_RECENT = 0.9  # weight of the past in the recent mean


class Loop:
    """Learns ``parameters`` from ``micro_batches``.

    Args:
        learn: adds the gradient of ``share`` times the summed loss of a micro-batch, and returns the sum.
        measure: the mean held-out loss a token, with the parameters as they are.
        before_step: receives before each step which share of them is done, and before a measurement 1.
        decay: receives after each step which share of the weights it takes away.
        processes: that learn together; the held-out loss that ``measure`` returns is the same in all.
        scaled: ``learn`` computes in float16: its gradients are those of scaled losses.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        micro_batches: Sequence[MicroBatch],
        learn: Callable[[MicroBatch, float], float],
        measure: Callable[[], float],
        settings: LoopSettings,
        before_step: Callable[[float], None] = lambda done: None,
        decay: Callable[[float], None] = lambda share: None,
        processes: Processes = ALONE,
        *,
        scaled: bool = False,
    ) -> None:
        self.gradients, self.settings = Gradients(parameters, processes), settings
        self.micro_batches = micro_batches
        self.parameters, self.processes = self.gradients.parts, processes
        self.average, self.saved = Average(self.parameters, settings.ema), Saved(settings.state, processes)
        self.learn, self.measure, self.before_step, self.decay = learn, measure, before_step, decay
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.best: list[Tensor] = []
        self.state, self.log = TrainState(), Log(settings.log, writes=processes.first)
        self.scale = LossScale.begun(moves=scaled)
        self.steps = self._batches()

    def _batches(self) -> list[list[MicroBatch]]:
        """What each step learns from, until the budget is spent."""
        batches: list[list[MicroBatch]] = []
        spent, epoch = 0, 0
        while spent < self.settings.tokens:
            for batch in self._epoch(epoch):
                if spent < self.settings.tokens:
                    batches.append(batch)
                    spent += sum(micro_batch.tokens for micro_batch in batch)
            epoch += 1
        return batches

    def _epoch(self, epoch: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches in an order of their own, as batches."""
        generator = torch.Generator().manual_seed(1_000_003 * self.settings.seed + epoch)
        batch: list[MicroBatch] = []
        for index in torch.randperm(len(self.micro_batches), generator=generator).tolist():
            batch.append(self.micro_batches[index])
            if sum(micro_batch.tokens for micro_batch in batch) >= self.settings.batch_tokens:
                yield batch
                batch = []
        if batch:
            yield batch

    def run(self, progress: Progress) -> TrainState:
        """Learn; the parameters are then those with the least held-out loss."""
        if self.saved.exists():
            self._restore()
            progress.note(f"continuing after step {self.state.step} of {len(self.steps)}")
        else:
            if self.settings.state.exists():
                progress.note("the saved state of the training was damaged: it begins again")
            self.log.truncate(0)
            self._measure()
        every = max(1, len(self.steps) // self.settings.measurements)
        started, before = time.monotonic(), self.state.seconds
        with progress.task("learning", len(self.steps)) as task:
            task.advance(self.state.step)
            while not self.state.stopped:
                if not self._step(self.steps[self.state.step]):
                    self._roll_back(progress)
                    continue
                if self.settings.max_seconds is not None:
                    self.state.seconds = self.processes.agree(before + time.monotonic() - started)
                task.advance(1, f"loss {self.state.recent:.4g}, held out {self.state.held_out[-1][1]:.4g}")
                if self._spent() or self.state.step % every == 0:
                    self._measure()
        assign(self.parameters, self.best)
        return self.state

    def _spent(self) -> str:
        """Which budget is spent, or nothing."""
        limit = self.settings.max_seconds
        if self.state.step == len(self.steps):
            return "tokens"
        return "max_time" if limit is not None and self.state.seconds >= limit else ""

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, counted from 0."""
        return (
            self.settings.share(step, len(self.steps))
            * self.settings.learning_rate
            * 0.5**self.state.rollbacks
        )

    def _step(self, batch: Sequence[MicroBatch]) -> bool:
        """One step; False, with nothing changed, when the loss or its gradient is out of hand."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.state.step)
        self.gradients.clear()
        done = self.state.step / len(self.steps)
        self.before_step(done)
        tokens = sum(micro_batch.tokens for micro_batch in batch)
        factor = self.scale.factor
        losses = [
            counts * self.learn(micro_batch, factor * counts / tokens)
            for micro_batch, counts in self.processes.turns(batch)
        ]
        loss = self.processes.sum(sum(losses)) / tokens
        self.gradients.join(factor)
        norm = self.gradients.clip(self.settings.clip)
        unsettled = math.isnan(self.state.recent) or done < self.settings.settled
        recent = loss if unsettled else self.state.recent
        spike = loss - recent > (_SPIKE - 1) * abs(recent) + 1e-3
        if not math.isfinite(loss) or spike or not (math.isfinite(norm) or self.scale.moves):
            return False
        if math.isfinite(norm):
            self._move(done, group["lr"])
        else:
            self.scale.overflowed()
        self.state.recent = _RECENT * recent + (1 - _RECENT) * loss
        self.state.step += 1
        self.state.skipped = self.scale.skipped
        self.log.write(step=self.state.step, tokens=tokens, loss=loss, norm=norm, rate=group["lr"])
        return True

    def _move(self, done: float, rate: float) -> None:
        """Take the step, whose gradient is finite."""
        self.optimizer.step()
        if decayed := self.settings.decay(done) * rate:
            self.decay(decayed)
        self.average.update(self.state.step + 1)
        self.scale.held()

    def _roll_back(self, progress: Progress) -> None:
        """Go back to the last measurement with half the learning rate; too many times end it."""
        rollbacks, step = self.state.rollbacks + 1, self.state.step
        self._restore()
        self.state.rollbacks = rollbacks
        progress.note(f"the loss left its course at step {step}: back to step {self.state.step}")
        self.log.write(step=self.state.step, retreat=rollbacks)
        if rollbacks > _MOST_ROLLBACKS:
            self.state.stopped, self.state.logged = "the loss left its course", self.log.size
            self._save()

    def _measure(self) -> None:
        self.before_step(1.0)
        with self.average.in_place():
            self._judge(self.measure())
        self.log.write(
            step=self.state.step, tokens=self.state.tokens[-1], held_out=self.state.held_out[-1][1]
        )
        self.state.logged = self.log.size
        self._save()

    def _judge(self, loss: float) -> None:
        """Note the held-out loss of the parameters as they are, and keep them if they are the best."""
        if not math.isfinite(loss):
            if not self.state.held_out:
                raise TrainingError(
                    "the loss of the model is not finite before anything is learned",
                    fix="check the model with `edgepress inspect`; give other calibration text",
                )
            loss = math.inf
        state, patience = self.state, self.settings.patience
        state.held_out.append((state.step, loss))
        state.tokens.append(
            sum(micro_batch.tokens for batch in self.steps[: state.step] for micro_batch in batch)
        )
        if state.best[0] == state.step:
            self.best = self.best or [torch.empty_like(parameter.detach()) for parameter in self.parameters]
            for best, parameter in zip(self.best, self.parameters, strict=True):
                best.copy_(parameter.detach())
        kept = next(index for index, (step, _) in enumerate(state.held_out) if step == state.best[0])
        state.stopped = self._spent()
        if not state.stopped and patience is not None and len(state.held_out) - 1 - kept >= patience:
            state.stopped = "patience"

    def _save(self) -> None:
        data: dict[str, Any] = {"train_state": asdict(self.state), "best": self.best}
        if not self.state.stopped:  # else the best is all that is left to do something with
            data |= {
                "parameters": [parameter.detach() for parameter in self.parameters],
                "average": self.average.values,
                "optimizer": self.optimizer.state_dict(),
                "scale": asdict(self.scale),
            }
        self.saved.write(self.state.step, data)

    def _restore(self) -> None:
        data = self.saved.read()
        device = self.parameters[0].device
        self.state = TrainState(**data["train_state"])
        self.best = [one.to(device) for one in data["best"]]
        self.log.truncate(self.state.logged)
        if self.state.stopped:
            return
        self.scale = LossScale(**data["scale"])
        self.average.values = [one.to(device) for one in data["average"]]
        assign(self.parameters, data["parameters"])
        self.optimizer.load_state_dict(data["optimizer"])
