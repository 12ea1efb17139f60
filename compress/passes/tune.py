"""Tuning: scales, zero points, norms and biases of the whole compressed model learn to give the original's
outputs; the codes stay.

The few parameters that end-to-end training of a quantized model may still move (the second phase of
EfficientQAT, Chen et al. 2024, arXiv 2407.11062; norm tweaking, Li et al. 2023, arXiv 2309.02784), with the
original as the teacher: the KL divergence from its next-token distribution, or for an encoder the distance of
the last hidden states, and for a classifier of texts the KL of its labels too. Part of the calibration text
is held out, and the parameters that do best there are kept: at worst those the model came with.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ...errors import TrainingError
from ..model.anatomy import Anatomy
from ..model.weights import WeightSource
from ..pipeline.advance import Work, weights_of
from ..pipeline.algorithm import Fixed, whole_model
from ..pipeline.model_pass import Workload
from ..pipeline.stage import Stage
from ..train.learning import Learning
from ..train.students.student import Kind, Student
from ..train.teacher_sweep import streamed_bytes

_AS_BFLOAT16 = 2  # a weight that is made of its code takes about as long as one that is read in two bytes
_OF_CODES = {"scales", "zero_points"}  # kinds of which a group of codes has one


class Tune(Learning):
    """Options of ``tune``."""

    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("it learns kinds of parameters, not layers")
    learn: tuple[Kind, ...] = Field(
        ("scales", "norms", "biases"),
        min_length=1,
        description="kinds of parameters that learn: scales, zero_points, norms, biases, embedding",
    )

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """Codes of a byte, or weights where nothing is quantized; what learns; a micro-batch."""
        learned = scales * len(_OF_CODES.intersection(self.learn))
        tables = 24 if "embedding" in self.learn else 0
        micro_batch = self.training.micro_batch_tokens
        return streamed_bytes(source, micro_batch, learned, matrices=1 if scales else 4, tables=tables)

    def work(self, load: Workload) -> Work:
        """Also all matrices, which are made of their codes for every micro-batch, forth and back."""
        made = 2 * sum(map(weights_of, load.anatomy.linears()))
        times = self.learned_tokens(load.tokens) / self.training.micro_batch_tokens
        return super().work(load) + Work(stored=_AS_BFLOAT16 * times * made)

    def learned_numbers(self, anatomy: Anatomy, scales: int) -> int:
        table = anatomy.vocab_size * anatomy.hidden_size if "embedding" in self.learn else 0
        return scales * len(_OF_CODES.intersection(self.learn)) + table

    @property
    def lighter(self) -> str:
        return "fewer kinds in learn, or a smaller micro_batch_tokens"

    def learner(self, stage: Stage) -> Student:
        """The model with the parameters of ``learn`` free."""
        student = Student(stage.source, stage.device, streams=self.streams(stage))
        if not student.learn(self.learn, stage.masks.names):
            raise TrainingError(
                f"the model has no {' or '.join(self.learn)} to tune",
                fix="quantize it first: scales are what tuning is best at",
            )
        return student


PASS = Tune
