"""Tuning: scales, zero points, norms and biases of the whole compressed model learn to give the original's
outputs; the codes stay.

The few parameters that end-to-end training of a quantized model may still move (the second phase of
EfficientQAT, Chen et al. 2024, arXiv 2407.11062; norm tweaking, Li et al. 2023, arXiv 2309.02784), with the
original as the teacher: the KL divergence from its next-token distribution, or for an encoder the distance of
the last hidden states, and for a classifier of texts the KL of its labels too. Part of the calibration text
is held out, and the parameters that do best there are kept: at worst those the model came with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ...errors import TrainingError
from ..pipeline.algorithm import Fixed, whole_model
from ..pipeline.stage import Stage
from ..train.learning import Learning
from ..train.students.student import Kind, Student


class Tune(Learning):
    """Options of ``tune``."""

    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("it learns kinds of parameters, not layers")
    learn: tuple[Kind, ...] = Field(
        ("scales", "norms", "biases"),
        min_length=1,
        description="kinds of parameters that learn: scales, zero_points, norms, biases, embedding",
    )

    def working_bytes(self, weights: int) -> int:
        """The model in float32 as it is read, its codes, and the activations of one micro-batch."""
        student = weights + weights // 4
        return (
            student
            + self.teacher_bytes(weights)
            + 100 * self.training.micro_batch_tokens * math.isqrt(weights)
        )

    def learner(self, stage: Stage) -> Student:
        """The model with the parameters of ``learn`` free.

        Raises:
            TrainingError: it has none of them.
        """
        student = Student(stage.source, stage.device, streams=self.streams(stage))
        if not student.learn(self.learn, stage.masks.names):
            raise TrainingError(
                f"the model has no {' or '.join(self.learn)} to tune",
                fix="quantize it first: scales are what tuning is best at",
            )
        return student


PASS = Tune
