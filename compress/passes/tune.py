"""Tuning: scales, zero points, norms and biases of the whole compressed model learn to give the original's
outputs; the codes stay.

The few parameters that end-to-end training of a quantized model may still move (the second phase of
EfficientQAT, Chen et al. 2024, arXiv 2407.11062; norm tweaking, Li et al. 2023, arXiv 2309.02784), with the
original as the teacher: the KL divergence from its next-token distribution, or for an encoder the distance of
the last hidden states. Part of the calibration text is held out, and the parameters that do best there are
kept: at worst those the model came with.
"""

from __future__ import annotations

import math

from pydantic import Field

from ...errors import CalibrationError, TrainingError
from ..algorithm import ModelPass
from ..parts import PartWriter
from ..stage import Stage, StageResult
from ..training.lesson import Lesson
from ..training.loop import Course, LoopSettings
from ..training.objective import objective_for
from ..training.pieces import hold_out, pieces_of
from ..training.precision import Precision
from ..training.student import Kind, Student
from ..training.teacher import Teacher


class Tune(ModelPass):
    """Options of ``tune``."""

    learn: tuple[Kind, ...] = Field(
        ("scales", "norms", "biases"),
        min_length=1,
        description="what learns: scales, zero_points, norms, biases",
    )
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="in units of each parameter's own size")
    epochs: int = Field(2, ge=1, le=100, description="times that the calibration text is learned from")
    batch_tokens: int = Field(2048, ge=1, description="tokens of one step, at least")
    piece_tokens: int = Field(1024, ge=1, description="tokens that go through the model at once")
    top_k: int = Field(256, ge=1, description="the teacher's likeliest tokens that are kept apart")
    precision: Precision = Field("auto", description="auto: bfloat16 where the processor computes in it")
    seed: int = 0

    @property
    def calibrated(self) -> bool:
        return True

    def working_bytes(self, weights: int) -> int:
        """The model in float32 as it is read, its codes, and the activations of one piece."""
        return weights + weights // 4 + 100 * self.piece_tokens * math.isqrt(weights)

    def multiplications(self, weights: int, tokens: int) -> float:
        """The teacher once, three passes a step, and the measurements of what is held out."""
        return float(weights) * tokens * (1 + 3 * self.epochs + 1)

    def apply(self, stage: Stage) -> StageResult:
        """Learn, and write the model with its new parameters.

        Raises:
            TrainingError: the model has none of the parameters that should learn.
            CalibrationError: too little text to learn from and to hold some out.
        """
        if stage.calibration is None:
            raise CalibrationError("tune needs calibration text", fix="pass --calibration FILE")
        pieces = pieces_of(stage.calibration, self.piece_tokens)
        learned_from, held_out = hold_out(pieces)
        objective = objective_for(stage.source.anatomy, self.top_k)
        directory = stage.directory
        teacher = Teacher(stage.original.reader.path, directory / "teacher", objective, stage.device)
        teacher.prepare(pieces, stage.progress)
        student = Student(stage.source, stage.device)
        if not student.learn(self.learn, stage.masks.names):
            raise TrainingError(
                f"the model has no {' or '.join(self.learn)} to tune",
                fix="quantize it first: scales are what tuning is best at",
            )
        lesson = Lesson(objective, teacher, learned_from, held_out, self.precision)
        settings = LoopSettings(
            state=directory / "loop.pt",
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_tokens=self.batch_tokens,
            seed=self.seed,
        )
        course = lesson.give(student, settings, stage.progress)
        return self._written(student, stage, course, lesson.held_out_tokens)

    def _written(self, student: Student, stage: Stage, course: Course, tokens: int) -> StageResult:
        source = stage.source
        writer = PartWriter(source, source.schemes, stage.directory)
        values, parts = student.values(), []
        for block in source.anatomy.blocks:
            quantized = {
                linear.name: student.tensor(linear.name)
                for linear in block.linears()
                if linear.name in source.schemes
            }
            parts.append(writer.part(block, quantized, values, stage.masks.of(block, stage.device)))
        step, loss = course.best
        measure = "distance" if source.anatomy.kind == "encoder" else "kl"
        details = {
            "held_out": [[at, value] for at, value in course.held_out if math.isfinite(value)],
            "kept": step,
            "retreats": course.retreats,
            "parameters": sum(parameter.numel() for parameter in student.changes()),
        }
        return StageResult(
            [*parts, writer.outer(values)],
            [],
            dict(source.schemes),
            writer.forms,
            [{"tokens": tokens, measure: loss}],
            details=details,
        )


PASS = Tune
