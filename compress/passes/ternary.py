"""Ternary weights: a trained model learns to compute with −1, 0 and 1, the original its teacher.

BitNet b1.58, Ma et al. 2024, "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", arXiv
2402.17764: absmean scales, int8 activations with a scale for each token. The rounding grows from nothing to
the whole over the first steps (``grow``). The result is stored and exported as 2-bit weights whose codes
never leave −1, 0 and 1. The activations of the stored scheme are float: int8 is what training gets the
weights used to, and what kernels may compute in.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ..block import LayerStatus, weight_error
from ..scheme import Scheme
from ..stage import Stage
from ..training.course import LoopSettings
from ..training.learning import Learning
from ..training.pieces import Piece
from ..training.student import Student
from ..training.ternary_linear import TernaryLinear

_BITS: Literal[2] = 2


class Ternary(Learning):
    """Options of ``ternary``."""

    group_size: int | None = Field(128, description="weights that share a scale; null is one for each output")
    activations: Literal["int8", "float"] = Field("int8", description="that training computes with")
    grow: float = Field(0.3, ge=0, lt=1, description="share of the steps in which the rounding grows")
    embedding: bool = Field(False, description="the embedding learns too, and the head")
    learning_rate: float = Field(4e-3, gt=0, le=0.1, description="in units of each parameter's own size")
    epochs: int = Field(8, ge=1, le=1000, description="times that the calibration text is learned from")

    @property
    def weight_scheme(self) -> Scheme:
        return Scheme(bits=_BITS, group_size=self.group_size)

    def working_bytes(self, weights: int) -> int:
        """The model, latent weights with their change, gradient, two moments and best, and a piece."""
        blocks = 1 if self.checkpointing else 12
        return 9 * weights + 10 * blocks * self.piece_tokens * math.isqrt(weights)

    def student(self, stage: Stage) -> Student:
        student = Student(stage.source, stage.device)
        for block in stage.source.anatomy.blocks:
            masks = stage.masks.of(block, stage.device)
            for linear in filter(self.selects, block.linears()):
                weight = stage.source.dense(linear.name).to(stage.device)
                bias = student.bias(linear.name)
                module = TernaryLinear(weight, self.weight_scheme, bias, masks.get(linear.name))
                student.learn_codes(
                    linear.name, module, module.tensor().scale, int8=self.activations == "int8"
                )
        student.learn(("norms", "biases", *(("embedding",) if self.embedding else ())))
        return student

    def _settings(self, stage: Stage, pieces: list[Piece]) -> LoopSettings:
        return super()._settings(stage, pieces).but(settled=self.grow)

    def before_step(self, student: Student, done: float) -> None:
        """The rounding grows in a line; a measurement (``done`` 1) is of what would be stored."""
        for module in student.quantized.values():
            if isinstance(module, TernaryLinear):
                module.share = min(1.0, done / self.grow) if self.grow else 1.0

    def statuses(self, student: Student) -> list[LayerStatus]:
        """Of each layer, how far it is from the weight that it began with."""
        found = []
        for name in student.began:
            ended, before = student.tensor(name), student.source.dense(name).to(student.device)
            error = weight_error(ended.dequantize() - before, before)
            zeros = float((ended.codes == 0).float().mean())
            label = f"ternary-g{self.group_size}" if self.group_size else "ternary-channel"
            found.append(LayerStatus(name, "ternary", label, "ok", error, "weight", f"{zeros:.0%} zeros"))
        return found


PASS = Ternary
