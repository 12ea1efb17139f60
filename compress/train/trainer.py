"""``Trainer``: a student learns from its teacher, and is measured on text that was held out.

What a pass that learned leaves: the model with its new parameters, block by block, and its history.

On-policy distillation: the student writes, the teacher grades what it wrote.

GKD, Agarwal et al. 2023, arXiv 2306.13649: a student that only ever sees other people's text is never
corrected where its own leads. For a share of the micro-batches the text after a prompt is replaced by the
student's own, sampled as it is at the time, and the loss is that of the tokens that it wrote.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ...terminal.progress import Progress
from ..measure.reading import LoopPrecision, autocast
from ..model.kv_scheme import CACHE_NAMES
from ..numbers.scheme import Scheme
from ..pipeline.block import LayerStatus
from ..pipeline.block_shards import BlockWriter
from ..pipeline.device import small_blocks_kept
from ..pipeline.processes import ALONE, Processes
from ..pipeline.stage import Stage, StageResult
from ..text.micro_batches import MicroBatch
from .loop import Loop
from .losses.objective import Objective, learn_from, total_loss
from .students.student import Student
from .teacher import Teacher
from .train_state import LoopSettings, TrainState


@dataclass(frozen=True)
class OnPolicy:
    """``share`` of the micro-batches are written by the student after the first ``prompt`` share of their
    tokens.

    How far learning is decides with ``seed`` and a micro-batch's number what is drawn, so that a resumed run
    draws the same.
    """

    share: float
    prompt: float
    seed: int

    def rewritten(self, model: nn.Module, batch: MicroBatch, done: float) -> MicroBatch:
        """The micro-batch, or the one that the student made of it when the share ``done`` of the steps was
        over; its rows have no padding.
        """
        generator = self._generator(batch, done)
        if float(torch.rand(1, generator=generator)) >= self.share:
            return batch
        length = batch.input_ids.shape[1]
        begin = max(1, round(self.prompt * length))
        if begin >= length:
            return batch
        return replace(
            batch, input_ids=continued(model, batch.input_ids, begin, generator), counted_from=begin - 1
        )

    def _generator(self, batch: MicroBatch, done: float) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed} {batch.number} {done!r}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def continued(model: Any, input_ids: torch.Tensor, begin: int, generator: torch.Generator) -> torch.Tensor:
    """``input_ids [rows, length]`` with all from the place ``begin`` on drawn from ``model``."""
    from transformers import DynamicCache  # only here: a plan of what learns has no need of it

    device = next(model.parameters()).device
    accepted = signature(model.forward).parameters
    cache = {next(name for name in CACHE_NAMES if name in accepted): DynamicCache(config=model.config)}
    rows = fresh = input_ids[:, :begin].to(device)
    with torch.no_grad(), parametrize.cached():
        while rows.shape[1] < input_ids.shape[1]:
            logits = model(input_ids=fresh, use_cache=True, **cache).logits
            chances = torch.softmax(logits[:, -1].to(torch.float32), -1).cpu()
            fresh = torch.multinomial(chances, 1, generator=generator).to(device)
            rows = torch.cat([rows, fresh], 1)
    return rows.to(input_ids.device)


@dataclass
class Trainer:
    """Training data: ``micro_batches`` to learn from and ``held_out`` ones, by ``teacher`` under
    ``objective``, to one student, to its copies in several ``processes`` or to one that is spread over them.
    ``done`` is the fraction of the steps that are over.
    """

    objective: Objective
    teacher: Teacher
    micro_batches: list[MicroBatch]
    held_out: list[MicroBatch]
    precision: LoopPrecision
    processes: Processes = ALONE
    on_policy: OnPolicy | None = None
    done: float = 0.0

    def learn(self, student: Student, batch: MicroBatch, share: float) -> float:
        """Add the gradient of ``share`` times the summed loss of ``batch``; returns the sum."""
        with autocast(self.precision, student.device):
            if self.on_policy is not None:
                batch = self.on_policy.rewritten(student.model, batch, self.done)
        answers = self.teacher.answers(batch)
        with autocast(self.precision, student.device):
            return learn_from(self.objective, student.model, batch, answers, share, student.device, self.done)

    def measure(self, student: Student) -> float:
        """The mean loss of a held-out token, in float32."""
        losses = (
            counts
            * total_loss(self.objective, student.model, batch, self.teacher.answers(batch), student.device)
            for batch, counts in self.processes.turns(self.held_out)
        )
        return self.processes.sum(sum(losses)) / self.held_out_tokens

    @property
    def held_out_tokens(self) -> int:
        """Tokens that the held-out loss is a mean over."""
        return sum(batch.tokens for batch in self.held_out)

    def fit(
        self,
        student: Student,
        loop: LoopSettings,
        progress: Progress,
        before_step: Callable[[float], None] = lambda done: None,
    ) -> TrainState:
        """Let the student learn; its parameters are then the best ones. Resumes from ``loop.state``."""

        def begin(done: float) -> None:
            self.done = done
            before_step(done)

        taught = Loop(
            [*student.changes(), *self.objective.parameters()],
            self.micro_batches,
            lambda batch, share: self.learn(student, batch, share),
            lambda: self.measure(student),
            loop,
            begin,
            student.decay,
            self.processes,
            scaled=self.precision == "float16",
        )
        with small_blocks_kept():
            return taught.run(progress)


def write_learned(
    student: Student,
    stage: Stage,
    train_state: TrainState,
    trainer: Trainer,
    measure: str,
    statuses_of: Callable[[Student, Sequence[str]], list[LayerStatus]],
) -> StageResult:
    """Write the parts of the model that ``student`` has become; of several processes the first writes.

    Args:
        measure: how the held-out loss is called.
        statuses_of: one for each of some layers, which are not spread, that the pass changed in kind.
    """
    schemes: dict[str, Scheme] = student.schemes()
    writer = BlockWriter(stage.source, schemes, stage.directory)
    parts, statuses = [], []
    for index, block in enumerate(stage.source.anatomy.blocks):
        with student.whole(index):
            if stage.processes.first:
                names = [linear.name for linear in block.linears() if linear.name in schemes]
                quantized = {name: student.tensor(name) for name in names}
                masks = stage.masks.of(block, stage.device)
                parts.append(writer.part(block, quantized, student.values(block), masks))
                statuses += statuses_of(student, names)
    if not stage.processes.first:
        return StageResult([], [], {}, {})
    return StageResult(
        [*parts, writer.outer(student.values(None))],
        statuses,
        schemes,
        writer.forms,
        details=_details(student, train_state, measure)
        | {"precision": trainer.precision, "held_out_tokens": trainer.held_out_tokens},
    )


def _details(student: Student, train_state: TrainState, measure: str) -> dict[str, Any]:
    """What the manifest keeps of the training run; ``tokens`` go with ``held_out``."""
    finite = [
        (pair, tokens)
        for pair, tokens in zip(train_state.held_out, train_state.tokens, strict=True)
        if math.isfinite(pair[1])
    ]
    return {
        "measure": measure,
        "held_out": [list(pair) for pair, _ in finite],
        "tokens": [tokens for _, tokens in finite],
        "kept": train_state.best[0],
        "stopped": train_state.stopped,
        "retreats": train_state.rollbacks,
        "skipped": train_state.skipped,
        "parameters": sum(parameter.numel() for parameter in student.changes()),
    }
