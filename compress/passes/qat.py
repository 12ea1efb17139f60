"""Quantization-aware training: codes, scales, norms and biases learn together to give the original's outputs.

Weights are quantized in every forward pass and the gradient goes straight through the rounding, with step
sizes that learn (LSQ, Esser et al. 2019, arXiv 1902.08153), or with the range that each group has at the time
(``observer: minmax``). The original model is the teacher, as in LLM-QAT (Liu et al. 2023, arXiv 2305.17888),
and as there activations and the key/value cache can be rounded besides. It begins where quantization after
training ended: a layer that is quantized keeps its scheme, and its codes are the first ones; layers still in
float are rounded to ``scheme``. What training computes with is to the bit what is stored.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ...errors import TrainingError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import Linear
from ..model.weights import WeightSource
from ..numbers.grid import quantize
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.block import LayerStatus, weight_error
from ..pipeline.block_pass import Selective
from ..pipeline.stage import Stage
from ..train.learning import Learning
from ..train.students.lsq_linear import LsqLinear
from ..train.students.rounded_linear import ACTIVATION_BITS, Activations, RoundedLinear, minmax, round_cache
from ..train.students.student import Coded, Student
from ..train.teacher_sweep import CODES

# Median distance in steps between codes and original beyond which the two are not the same weight.
_STRANGE = 2.0


class Qat(Selective, Learning):
    """Options of ``qat``."""

    keeps_codes: ClassVar[bool] = True
    scheme: SchemeOption | None = Field(None, description="scheme of layers that are not quantized yet")
    observer: Literal["lsq", "minmax"] = Field(
        "lsq", description="scales learn (lsq), or follow the range of each group (minmax)"
    )
    activations: Activations = Field("float", description="rounding of activations in training")
    kv: Literal["float", "int8", "int4"] = Field(
        "float", description="rounding of keys and values in training"
    )
    start: Literal["codes", "original"] = Field(
        "original",
        description="initial latent weight: the bin centre (codes), or the original clamped to its bin",
    )
    codes_rate: float = Field(
        1.0, gt=0, le=10, description="learning rate of the latent weights, relative to learning_rate"
    )
    embedding: bool = Field(False, description="whether the embedding and the head learn too")

    @property
    def weight_scheme(self) -> Scheme | None:
        return self.scheme

    @property
    def rounds_cache(self) -> bool:
        return self.kv != "float"

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """See :data:`.teacher_sweep.CODES`."""
        return self.held_bytes(source, CODES, embedding=self.embedding)

    def learned_numbers(self, anatomy: Anatomy, scales: int) -> int:
        table = anatomy.vocab_size * anatomy.hidden_size if self.embedding else 0
        return super().learned_numbers(anatomy, scales) + scales + table

    @property
    def lighter(self) -> str:
        return f"tune (scales, norms) or block_qat (codes), which hold a block at a time; {super().lighter}"

    def learner(self, stage: Stage) -> Student:
        """The model with its codes free."""
        student = Student(stage.source, stage.device)

        def coded(linear: Linear, mask: Tensor | None) -> Coded:
            tensor = self._first(stage, linear, mask)
            weight, bias = self._leaning(stage, linear, tensor), student.bias(linear.name)
            if self.observer == "lsq":
                return LsqLinear(tensor, bias, weight, mask)
            weight = tensor.dequantize() if weight is None else weight
            return RoundedLinear(weight, tensor.scheme, minmax, bias, mask)

        bits = ACTIVATION_BITS[self.activations]
        student.learn_codes(self.selects, stage.masks, coded, bits, self.codes_rate)
        student.learn(("scales", "norms", "biases", *(("embedding",) if self.embedding else ())))
        if (kept := ACTIVATION_BITS[self.kv]) is not None:
            round_cache(student.model, stage.source.anatomy, kept)
        return student

    def _first(self, stage: Stage, linear: Linear, mask: Tensor | None) -> QTensor:
        """The quantized weight that learning begins with."""
        weight = stage.source.linear(linear.name)
        if isinstance(weight, QTensor) and weight.scheme.of_trellis:
            raise TrainingError(
                f"{linear.name} is {weight.scheme.name}: words of a trellis do not learn one by one",
                fix="take tune, whose scales and norms do",
            )
        if isinstance(weight, QTensor):
            return weight.to(stage.device)
        if self.scheme is None:
            raise TrainingError(
                f"{linear.name} is not quantized, and qat has no scheme for it",
                fix="quantize it first (gptq is the best start), or give scheme",
            )
        return quantize(weight.to(stage.device), self.scheme, mask=mask)

    def _leaning(self, stage: Stage, linear: Linear, tensor: QTensor) -> Tensor | None:
        """The original weight, where a code leans towards it."""
        if self.start == "codes":
            return None
        name = f"{linear.name}.weight"
        weight = None
        if stage.original.shapes.get(name) == tensor.shape:
            weight = stage.original.dense(linear.name).to(stage.device)
        if weight is None or _distance(weight, tensor) > _STRANGE:
            raise TrainingError(
                f"{linear.name} is not the original's: rescaled, cut or renumbered since",
                fix="give qat start: codes",
            )
        return weight

    def statuses(self, student: Student, names: Sequence[str]) -> list[LayerStatus]:
        """Of each layer, how far its weight is from that it began with."""
        found = []
        for name in filter(student.began.__contains__, names):
            began, ended = student.began[name].to(student.device), student.tensor(name)
            moved = float((began.codes != ended.codes).float().mean())
            before = began.dequantize()
            error = weight_error(ended.dequantize() - before, before)
            detail = f"{moved:.1%} of the codes moved"
            found.append(LayerStatus(name, "qat", began.scheme.name, "ok", error, "weight", detail))
        return found


def _distance(weight: Tensor, tensor: QTensor) -> float:
    """Median distance between ``weight`` and what the codes stand for, in steps of each group."""
    change = (weight - tensor.dequantize().to(weight.device)).view(*tensor.scale.shape, -1)
    return float(
        (change.abs() / tensor.scale.abs().unsqueeze(-1)).flatten()[:: max(1, change.numel() >> 16)].median()
    )


PASS = Qat
