"""``Trainer``: a student learns from its teacher, and is measured on text that was held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...terminal.progress import Progress
from ..measure.precision import LoopPrecision, autocast
from ..pipeline.device import small_blocks_kept
from ..pipeline.processes import ALONE, Processes
from ..text.micro_batches import MicroBatch
from .loop import Loop
from .losses.objective import Objective, learn_from, total_loss
from .on_policy import OnPolicy
from .students.student import Student
from .teacher import Teacher
from .train_state import LoopSettings, TrainState


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
