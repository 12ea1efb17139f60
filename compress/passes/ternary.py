"""Ternary and binary weights: a model learns to compute with −1, 0 and 1, the original its teacher.

BitNet b1.58, Ma et al. 2024, "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", arXiv
2402.17764: absmean scales, int8 activations with a scale for each token. The rounding grows from nothing to
the whole over the first steps. ``scales: matrix`` is one scale for a whole matrix, as in the paper
and as transformers' BitNet form holds it; with ``learned`` each group's scale begins at two thirds of its
largest weight and learns (ParetoQ, Liu et al. 2025, arXiv 2502.02631). The paper's learning rate is
``schedule: two_stages``, with weight decay. The result is stored and exported as 2-bit weights whose codes
never leave −1, 0 and 1. With ``sub_norms`` the student is BitNet's form of the Llama that it comes from,
whose norms before o and down change the size of what each token gets until they have learned. The activations
of the stored scheme are float: int8 is what training gets the weights used to, and what kernels may compute
in.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..model.anatomy import Anatomy
from ..model.block_anatomy import Linear
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import Fixed
from ..pipeline.block import LayerStatus, weight_error
from ..pipeline.block_pass import Selective
from ..pipeline.stage import Stage, StageResult
from ..text.micro_batches import MicroBatch, micro_batches_of
from ..train.learning import TRAINING_OF_PASS, Learning
from ..train.students.lsq_linear import LsqLinear
from ..train.students.rounded_linear import (
    ACTIVATION_BITS,
    Activations,
    RoundedLinear,
    binary,
    elastic,
    ternary,
    ternary_of_matrix,
)
from ..train.students.student import Coded, Kind, Student
from ..train.students.sub_norms import source_with_sub_norms, with_sub_norms
from ..train.teacher_sweep import CODES
from ..train.train_state import LoopSettings
from ..train.training_options import TrainingOptions

_BITS: Literal[2] = 2
_CODEBOOKS = {
    ("ternary", "group"): ternary,
    ("ternary", "matrix"): ternary_of_matrix,
    ("binary", "group"): binary,
}


_GROW = 0.3  # fraction of the steps over which the rounding is blended in


class Ternary(Selective, Learning):
    """Options of ``ternary``."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        "grow": Fixed(_GROW, "rounded at once, the first steps would undo what the model knows")
    }
    group_size: int | None = Field(
        128, description="how many weights have one scale; null: one scale per output channel"
    )
    codes: Literal["ternary", "binary"] = Field(
        "ternary", description="codes: −1, 0 and 1 (ternary), or −1 and 1 (binary)"
    )
    scales: Literal["group", "matrix", "learned"] = Field(
        "group",
        description="scale: mean magnitude of each group or of the matrix; or learned, from the largest on",
    )
    activations: Activations = Field("int8", description="rounding of activations in training")
    embedding: bool = Field(False, description="whether the embedding and the head learn too")
    sub_norms: bool = Field(
        False, description="whether a Llama gets norms before o and down, as BitNet has them"
    )
    training: TrainingOptions = Field(
        TrainingOptions(learning_rate=4e-3, epochs=8), description=TRAINING_OF_PASS
    )

    @model_validator(mode="after")
    def _known_pair(self) -> Self:
        if self.codes == "binary" and self.scales != "group":
            raise ValueError(f"binary codes have scales of a group, not {self.scales}")
        return self

    @property
    def weight_scheme(self) -> Scheme:
        return Scheme(bits=_BITS, group_size=self.group_size)

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """See :data:`.teacher_sweep.CODES`."""
        return self.held_bytes(source, CODES, embedding=self.embedding)

    def learned_numbers(self, anatomy: Anatomy, scales: int) -> int:
        table = anatomy.vocab_size * anatomy.hidden_size if self.embedding else 0
        return super().learned_numbers(anatomy, scales) + table

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        return with_sub_norms(anatomy) if self.sub_norms else anatomy

    def apply(self, stage: Stage) -> StageResult:
        if not self.sub_norms or stage.calibration is None:
            return super().apply(stage)
        micro_batches = micro_batches_of(stage.calibration, self.training.micro_batch_tokens)
        make = partial(source_with_sub_norms, stage.source, micro_batches, stage.directory, stage.device)
        return self._apply_to(stage, make)

    def learner(self, stage: Stage) -> Student:
        student = Student(stage.source, stage.device)

        def coded(linear: Linear, mask: Tensor | None) -> Coded:
            weight = stage.source.dense(linear.name).to(stage.device)
            return self._module(weight, student.bias(linear.name), mask)

        student.learn_codes(self.selects, stage.masks, coded, ACTIVATION_BITS[self.activations])
        scales: tuple[Kind, ...] = ("scales",) if self.scales == "learned" else ()
        student.learn((*scales, "norms", "biases", *(("embedding",) if self.embedding else ())))
        return student

    def _module(self, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Coded:
        scheme = self.weight_scheme
        if self.scales != "learned":
            return RoundedLinear(weight, scheme, _CODEBOOKS[self.codes, self.scales], bias, mask)
        grouped = weight.to(torch.float32).reshape(len(weight), scheme.groups(weight.shape[1]), -1)
        begun = elastic(grouped, scheme, None if mask is None else mask.view(grouped.shape))
        return LsqLinear(begun, bias, weight, mask, codes=(-1, 1))

    def _settings(self, stage: Stage, micro_batches: list[MicroBatch]) -> LoopSettings:
        return super()._settings(stage, micro_batches).but(settled=_GROW)

    def before_step(self, student: Student, done: float) -> None:
        """The rounding grows in a line where scales follow the weights; a measurement (``done`` 1) is of what
        would be stored.
        """
        for module in student.quantized.values():
            if isinstance(module, RoundedLinear):
                module.share = min(1.0, done / _GROW)

    def statuses(self, student: Student, names: Sequence[str]) -> list[LayerStatus]:
        """Of each layer, how far it is from the weight that it began with."""
        found = []
        for name in filter(student.began.__contains__, names):
            ended, before = student.tensor(name), student.source.dense(name).to(student.device)
            error = weight_error(ended.dequantize() - before, before)
            zeros = float((ended.codes == 0).float().mean())
            label = f"{self.codes}-g{self.group_size}" if self.group_size else f"{self.codes}-channel"
            found.append(LayerStatus(name, "ternary", label, "ok", error, "weight", f"{zeros:.0%} zeros"))
        return found


PASS = Ternary
