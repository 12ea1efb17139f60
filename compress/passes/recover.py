"""Recovery: what is left of the model learns to give the original's outputs, after pruning or another cut.

Distillation from the original on its own calibration text (Hinton, Vinyals, Dean 2015, arXiv 1503.02531), as
it follows pruning in Sanh et al. 2020 (arXiv 2005.07683): ``train: all`` moves the weights of the linears,
norms and biases, ``train: norms`` only the last two, a hundredth of the memory. A pruned weight stays exactly
zero, and what training computes with is the weight as it will be stored. Codes do not move here: layers that
are quantized are refused, since ``tune`` moves their scales and ``qat`` their codes.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ..stage import Stage
from ..training.float_student import float_student
from ..training.learning import Learning
from ..training.student import Student


class Recover(Learning):
    """Options of ``recover``."""

    train: Literal["all", "norms"] = Field(
        "all", description="all: linears, norms, biases; norms: no linears"
    )
    learning_rate: float = Field(4e-3, gt=0, le=0.1, description="in units of each parameter's own size")

    def working_bytes(self, weights: int) -> int:
        """The model, what each weight was, its change, gradient, two moments and best value, and a piece."""
        copies = 7 if self.train == "all" else 1
        blocks = 1 if self.checkpointing else 12
        return copies * weights + 10 * blocks * self.piece_tokens * math.isqrt(weights)

    def student(self, stage: Stage) -> Student:
        """The model with its float parameters free.

        Raises:
            TrainingError: a selected layer is quantized, or there is nothing to learn.
        """
        return float_student(stage, self.selected(stage.source.anatomy) if self.train == "all" else [])


PASS = Recover
