"""Recovery: what is left of the model learns to give the original's outputs, after pruning or another cut.

Distillation from the original on its own calibration text (Hinton, Vinyals, Dean 2015, arXiv 1503.02531), as
it follows pruning in Sanh et al. 2020 (arXiv 2005.07683). Norms and biases learn in any case; with ``train:
all`` the weights of the linears too, with ``train: lora`` by a change of low rank that is merged at the end
(Hu et al. 2021, arXiv 2106.09685), in a fraction of the memory. A pruned weight stays exactly zero, and what
training computes with is the weight as it will be stored. Codes do not move here: layers that are quantized
are refused, since ``tune`` moves their scales and ``qat`` their codes.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ..pipeline.stage import Stage
from ..train.learning import Learning
from ..train.students.float_student import float_student
from ..train.students.student import Student

# Copies of the weights that are held: the model and what each weight was; its change, gradient, two moments
# and best value are as large again where all of it learns.
_COPIES = {"all": 7, "lora": 2, "norms": 1}


class Recover(Learning):
    """Options of ``recover``."""

    train: Literal["all", "lora", "norms"] = Field("all", description="linears: whole, by low rank, or not")
    rank: int = Field(16, ge=1, description="of the change of each linear, for lora")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="in units of each parameter's own size")

    def working_bytes(self, weights: int) -> int:
        """The copies of the weights, and a micro-batch."""
        blocks = 1 if self.checkpointing else 12
        student = _COPIES[self.train] * weights + 10 * blocks * self.piece_tokens * math.isqrt(weights)
        return student + self.teacher_bytes(weights)

    def learner(self, stage: Stage) -> Student:
        """The model with its float parameters free.

        Raises:
            TrainingError: a selected layer is quantized, or there is nothing to learn.
        """
        linears = [] if self.train == "norms" else self.selected(stage.source.anatomy)
        return float_student(stage, linears, self.rank if self.train == "lora" else None, self.seed)


PASS = Recover
