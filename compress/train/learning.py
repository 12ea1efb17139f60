"""``Learning``: what the passes that learn have in common, their options and the way to a result.

A pass says what is learned (:meth:`Learning.learner`) and from what (:meth:`Learning.objective`); by default
from the original's outputs. Part of the calibration text is held out, and the parameters that do best there
are kept: at worst those that the model came with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from ...errors import CalibrationError, TrainingError
from ..measure.precision import LoopPrecision, chosen
from ..model.module_names import module_name
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import ModelPass
from ..pipeline.block import LayerStatus
from ..pipeline.part_writer import PartWriter
from ..pipeline.stage import LOG, Stage, StageResult
from ..text.micro_batches import MicroBatch, held_out_tokens, hold_out, micro_batches_of
from .checkpointing import checkpoint_blocks
from .losses.objective import Objective, objective_for
from .on_policy import OnPolicy
from .students.sharding import whole
from .students.student import Student
from .teacher import LiveTeacher, Teacher, WrittenTeacher
from .train_state import Course, LoopSettings, Schedule
from .trainer import Lesson


class Learning(ModelPass):
    """Options of every pass that learns."""

    together: ClassVar[bool] = True
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="in units of each parameter's own size")
    epochs: int = Field(2, ge=1, le=100, description="times that the calibration text is learned from")
    tokens: int | None = Field(None, ge=1, description="budget of tokens to learn from, in place of epochs")
    max_time: float | None = Field(None, gt=0, description="minutes after which learning ends")
    batch_tokens: int = Field(2048, ge=1, description="tokens of one step, at least")
    piece_tokens: int = Field(1024, ge=1, description="tokens that go through the model at once")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps in which the learning rate rises")
    schedule: Schedule = Field(
        "cosine", description="how the learning rate falls: cosine, to a tenth, or two_stages, to zero"
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="share of the weights, times the learning rate")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the average of the parameters that is kept")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient of all parameters")
    measurements: int = Field(6, ge=1, description="of the held-out loss, after the first")
    patience: int | None = Field(None, ge=1, description="measurements without a new best one that end it")
    checkpointing: bool = Field(False, description="compute activations twice to keep fewer")
    top_k: int = Field(256, ge=1, description="the teacher's likeliest tokens that are kept apart")
    cache: bool = Field(
        True, description="the teacher's answers are written down; else it is asked every time"
    )
    precision: LoopPrecision = Field(
        "auto", description="auto: bfloat16 where the processor computes in it, else float16 where that is"
    )
    seed: int = 0

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_time is None else 60 * self.max_time

    @property
    def calibrated(self) -> bool:
        return True

    def multiplications(self, weights: int, tokens: int) -> float:
        """The teacher, three passes a step, and the measurements of what is held out."""
        learned = tokens * self.epochs if self.tokens is None else self.tokens
        held_out = held_out_tokens(tokens) * (self.measurements + 1)
        asked = tokens if self.cache else learned + held_out
        return float(weights) * (asked + (4 if self.checkpointing else 3) * learned + held_out)

    @property
    def teacher_stays(self) -> bool:
        """Whether the teacher is in memory beside the student, and asked every time."""
        return not self.cache

    def teacher_bytes(self, weights: int) -> int:
        """What a teacher takes that stays beside the student."""
        return weights if self.teacher_stays else 0

    def learner(self, stage: Stage) -> Student:
        """The model of ``stage`` with what should learn, and ``learned`` not empty."""
        raise TypeError(f"{type(self).__name__} does not define learner")

    def objective(self, stage: Stage) -> Objective:
        """What is made small; by default the distance from the original's outputs."""
        return objective_for(stage.source.anatomy, self.top_k)

    def teacher(self, stage: Stage, objective: Objective) -> Teacher:
        """Whom the student learns from; by default the original, whose answers are written down."""
        if self.teacher_stays:
            return LiveTeacher(stage.original.reader.path, objective, stage.device, stage.processes)
        reader, directory = stage.original.reader, stage.directory / "teacher"
        if stage.answers is not None:
            directory = stage.answers / reader.fingerprint()[:24]
        return WrittenTeacher(reader.path, directory, objective, stage.device, stage.processes)

    def on_policy_writing(self) -> OnPolicy | None:
        """How the student writes what it learns from; None where all is given."""
        return None

    def measure(self, stage: Stage) -> str:
        """How the held-out loss is called."""
        if stage.source.anatomy.classifier is not None:
            return "label_kl + states"
        return "distance" if stage.source.anatomy.kind == "encoder" else "kl"

    def before_step(self, student: Student, done: float) -> None:
        """Told before each step which share of them is done, and before a measurement 1."""

    def statuses(self, student: Student, names: Sequence[str]) -> list[LayerStatus]:
        """One for each of the layers ``names``, which are not spread, that the pass changed in kind; by
        default none.
        """
        return []

    def apply(self, stage: Stage) -> StageResult:
        """Learn, and write the model with its new parameters.

        Raises:
            TrainingError: the model has none of the parameters that should learn.
            CalibrationError: too little text to learn from and to hold some out.
        """
        if stage.calibration is None:
            name = type(self).__name__.lower()
            raise CalibrationError(f"{name} needs calibration text", fix="pass --calibration FILE")
        micro_batches = micro_batches_of(stage.calibration, self.piece_tokens)
        objective = self.objective(stage)
        teacher = self.teacher(stage, objective)
        teacher.prepare(micro_batches, stage.progress)
        learned_from, held_out = hold_out(teacher.sound(micro_batches, stage.progress))
        own = self.on_policy_writing()
        student = self._student(stage, objective, own)
        precision = chosen(self.precision, stage.device)
        lesson = Lesson(objective, teacher, learned_from, held_out, precision, stage.processes, own)
        course = lesson.give(
            student,
            self._settings(stage, learned_from),
            stage.progress,
            lambda done: self.before_step(student, done),
        )
        return self._written(student, stage, course, lesson)

    def _apply_to(self, stage: Stage, make: Callable[[], WeightSource]) -> StageResult:
        """Learn a student of its own, which the first process ``make``s."""
        path = str(make().reader.path) if stage.processes.first else ""
        source = WeightSource.open(Path(stage.processes.agree(path)))
        return replace(Learning.apply(self, replace(stage, source=source)), form=source)

    def _student(self, stage: Stage, objective: Objective, own: OnPolicy | None) -> Student:
        """The learner; of sharded processes each builds it in the memory of its host, and keeps its part."""
        sharded = stage.processes.sharded
        if sharded:
            _require_spreadable(stage, objective, own)
        student = self.learner(replace(stage, device=torch.device("cpu")) if sharded else stage)
        if self.checkpointing:
            checkpoint_blocks(student.blocks())
        if sharded:
            student.spread(stage.device, stage.processes)
        return student

    def _settings(self, stage: Stage, micro_batches: list[MicroBatch]) -> LoopSettings:
        return LoopSettings(
            state=stage.directory / "loop.pt",
            log=stage.directory / LOG,
            learning_rate=self.learning_rate,
            tokens=self.tokens or self.epochs * sum(batch.tokens for batch in micro_batches),
            batch_tokens=self.batch_tokens,
            seed=self.seed,
            warmup=self.warmup,
            clip=self.clip,
            measurements=self.measurements,
            patience=self.patience,
            ema=self.ema,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            max_seconds=self.max_seconds,
        )

    def _written(self, student: Student, stage: Stage, course: Course, lesson: Lesson) -> StageResult:
        schemes: dict[str, Scheme] = student.schemes()
        writer = PartWriter(stage.source, schemes, stage.directory)
        parts, statuses = [], []
        for block, module in zip(stage.source.anatomy.blocks, student.blocks(), strict=True):
            with whole(module):
                if stage.processes.first:
                    names = [linear.name for linear in block.linears() if linear.name in schemes]
                    quantized = {name: student.tensor(name) for name in names}
                    masks = stage.masks.of(block, stage.device)
                    parts.append(writer.part(block, quantized, student.values(block), masks))
                    statuses += self.statuses(student, names)
        if not stage.processes.first:
            return StageResult([], [], {}, {})
        measure = self.measure(stage)
        return StageResult(
            [*parts, writer.outer(student.values(None))],
            statuses,
            schemes,
            writer.forms,
            [{"tokens": lesson.held_out_tokens, measure: course.best[1]}],
            details=self._details(student, course, measure) | {"precision": lesson.precision},
        )

    def _details(self, student: Student, course: Course, measure: str) -> dict[str, Any]:
        """What the manifest keeps of the course; ``tokens`` go with ``held_out``."""
        told = [
            (pair, tokens)
            for pair, tokens in zip(course.held_out, course.tokens, strict=True)
            if math.isfinite(pair[1])
        ]
        return {
            "measure": measure,
            "held_out": [list(pair) for pair, _ in told],
            "tokens": [tokens for _, tokens in told],
            "kept": course.best[0],
            "stopped": course.stopped,
            "retreats": course.retreats,
            "skipped": course.skipped,
            "parameters": sum(parameter.numel() for parameter in student.changes()),
        }


def _require_spreadable(stage: Stage, objective: Objective, own: OnPolicy | None) -> None:
    """Raises TrainingError for what cannot be learned by a student whose blocks are spread over processes."""
    anatomy = stage.source.anatomy
    if own is not None:
        raise TrainingError(
            "a student that is spread over processes (FSDP) does not write its own text",
            why="all processes gather a block at once, and would have to write equally many tokens",
            fix="launch without FSDP, or leave out on_policy",
        )
    if not objective.reads_outputs([module_name(anatomy, block.prefix) for block in anatomy.blocks]):
        raise TrainingError(
            "a student that is spread over processes (FSDP) cannot learn from what is inside blocks alone",
            why="a block is gathered for the way back when a gradient comes to its output",
            fix="add a loss of outputs, such as states, hidden or forward_kl; or launch without FSDP",
        )
