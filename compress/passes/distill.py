"""Distillation: a smaller model learns from the one it was cut from, by the losses that the recipe weighs.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. The student is
what the passes before left: fewer layers (``layers``; DistilBERT, Sanh et al. 2019, arXiv 1910.01108), fewer
heads, narrower MLPs, weights at zero; the teacher is the original. Its weights, norms and biases learn; the
embedding stays, unless ``embedding`` is set. With ``cross_entropy`` alone a model is trained from scratch.
The losses, each a term of ``train/losses/``, with a weight that is constant, or moves in a line from a first
to a last one (what is held out is measured with the last):

- decoders: ``forward_kl``, ``reverse_kl`` and ``jensen_shannon`` of the next token, ``cross_entropy`` of the
  text itself;
- encoders: ``cosine`` and ``embedding`` distance of the pooled embedding;
- classifiers of texts: ``label_kl``, the distribution of their labels, and ``label_cross_entropy`` of those
  that rows of the text have (the head stays as it is);
- both: ``states``, the last hidden states; ``hidden``, those after each block, compared with the teacher's at
  the same share of its depth; ``relations`` between the tokens in the last attention, and its maps
  (``attention``);
- encoder–decoders: ``sequence``, the cross-entropy of what the teacher writes for each source text or sound;
  or as of decoders the divergences of the next token, on the targets of the text.

``losses: outputs`` compares outputs alone: recovery after pruning (Sanh et al. 2020, arXiv 2005.07683). With
``train: lora`` linears change by a product of low rank that is merged at the end (Hu et al. 2021, arXiv
2106.09685), in a fraction of the memory; with ``train: norms`` only norms and biases learn. A pruned weight
stays exactly zero. Quantized layers are refused: ``tune`` moves their scales, ``qat`` their codes.

With ``student`` the model is not cut from the teacher: it is the checkpoint in that directory, or begins at
random with the shape of that ``config.json``. ``student_layers`` of an encoder–decoder are cut from it here.
With ``on_policy`` a share of the text is the student's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...errors import TrainingError
from ..model.anatomy import Anatomy
from ..model.weights import WeightSource
from ..pipeline.algorithm import Fixed
from ..pipeline.block_pass import Selective
from ..pipeline.stage import Stage, StageResult
from ..train.learning import TRAINING_OF_PASS, Learning
from ..train.losses.loss_names import Loss, LossOptions, called, losses_of, term_of
from ..train.losses.objective import Objective
from ..train.students.distill_students import (
    float_student,
    shallow_anatomy,
    shallow_source,
    shared_ids,
    student_anatomy,
    student_source,
)
from ..train.students.student import Student
from ..train.teacher_sweep import WEIGHTS, streamed_bytes
from ..train.trainer import OnPolicy
from ..train.training_options import TrainingOptions

Layers = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WeightOption = NotNegative | tuple[NotNegative, NotNegative]


# Float32 copies of the weights where the student is held whole.
_COPIES = {"all": WEIGHTS, "lora": 2, "norms": 1}


_PROMPT = 0.25  # fraction of a text that the student goes on from


class Distill(Selective, Learning):
    """Options of ``distill``."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        "prompt": Fixed(_PROMPT, "it sets the subject, and leaves most of the text to the student")
    }
    losses: dict[Loss, WeightOption] | Literal["outputs"] = Field(
        {},
        description="weight of each loss, or its first and last; empty: the default of the kind of model; "
        "outputs: of its outputs alone",
    )
    temperature: float = Field(1.0, gt=0, description="temperature that logits are divided by")
    relation_heads: int | None = Field(
        None, ge=1, description="relation heads of the loss relations; null: the teacher's key/value heads"
    )
    train: Literal["all", "lora", "norms"] = Field(
        "all", description="linears: all weights, low-rank changes (lora), or none; norms and biases always"
    )
    rank: int = Field(16, ge=1, description="rank of the change of each linear, for lora")
    student: str | None = Field(
        None,
        description="a checkpoint, or a config.json to begin at random with; null: what earlier passes left",
    )
    student_layers: tuple[Layers, Layers] | None = Field(
        None, description="encoder and decoder layers that a student keeps, evenly spaced; null: all"
    )
    beams: int = Field(4, ge=1, description="beams that an encoder–decoder teacher writes with; 1 is greedy")
    answer_tokens: int = Field(64, ge=1, description="tokens that an encoder–decoder teacher writes, at most")
    on_policy: float = Field(
        0.0, ge=0, le=1, description="fraction of the text that the student writes, after its first quarter"
    )
    embedding: bool = Field(False, description="whether the embedding and the head learn too")
    training: TrainingOptions = Field(
        TrainingOptions(learning_rate=4e-3, epochs=4), description=TRAINING_OF_PASS
    )

    @model_validator(mode="after")
    def _one_student(self) -> Self:
        if self.student is not None and self.student_layers is not None:
            raise ValueError("student has its own layers: leave out student_layers")
        return self

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """The copies of the weights, a micro-batch, and the teacher where it stays. Where no whole weight
        learns and nobody writes, blocks come one at a time: its weights and what they become, the factors
        that learn.
        """
        if self.train == "all" or self.on_policy or self._teacher_writes(source.anatomy):
            return self.held_bytes(source, _COPIES[self.train], embedding=self.embedding)
        micro_batch, tables = self.training.micro_batch_tokens, 24 if self.embedding else 0
        learned = self._factors(source.anatomy)
        return streamed_bytes(source, micro_batch, learned, matrices=8, tables=tables)

    def _teacher_writes(self, anatomy: Anatomy) -> bool:
        """Whether an encoder–decoder writes what is learned from, as it does by default."""
        return anatomy.kind == "encoder_decoder" and (not self.losses or "sequence" in self.losses)

    def learned_numbers(self, anatomy: Anatomy, scales: int) -> int:
        table = anatomy.vocab_size * anatomy.hidden_size if self.embedding else 0
        student = self.anatomy_after(anatomy)
        if self.train == "all":
            return table + super().learned_numbers(student, scales)
        return table + self._factors(student)

    def _factors(self, anatomy: Anatomy) -> int:
        """How many numbers learn in place of the weights of linears, where these are not what learns."""
        linears = self.selected(anatomy)
        factors = sum(linear.in_features + linear.out_features for linear in linears)
        return self.rank * factors if self.train == "lora" else 0

    @property
    def lighter(self) -> str:
        if self.train != "all":
            return ""
        return f"train: lora or train: norms, which hold a block at a time; {super().lighter}"

    def reads(self) -> tuple[Path, ...]:
        return () if self.student is None else (Path(self.student),)

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        if self.student_layers is not None:
            return shallow_anatomy(anatomy, self.student_layers)
        return anatomy if self.student is None else student_anatomy(Path(self.student))

    def apply(self, stage: Stage) -> StageResult:
        """As every pass that learns."""
        if self.student is None and self.student_layers is None:
            return super().apply(stage)
        if stage.source is not stage.original:
            raise TrainingError(
                "distill has a student of its own, and passes came before it", fix="put distill first"
            )
        return self._apply_to(stage, lambda: self._own(stage))

    def _own(self, stage: Stage) -> WeightSource:
        if self.student_layers is not None:
            return shallow_source(stage.original, self.student_layers, stage.directory)
        return student_source(Path(str(self.student)), stage.original, stage.directory, self.training.seed)

    def on_policy_writing(self) -> OnPolicy | None:
        return OnPolicy(self.on_policy, _PROMPT, self.training.seed) if self.on_policy else None

    def learner(self, stage: Stage) -> Student:
        linears = [] if self.train == "norms" else self.selected(stage.source.anatomy)
        rank = self.rank if self.train == "lora" else None
        streams = self.train != "all" and self.streams(stage)
        return float_student(
            stage, linears, rank, self.training.seed, embedding=self.embedding, streams=streams
        )

    @property
    def teacher_stays(self) -> bool:
        """Also where the student writes: what it will write has no answer yet."""
        return super().teacher_stays or bool(self.on_policy)

    def measure(self, stage: Stage) -> str:
        if self.losses == "outputs":
            return super().measure(stage)
        losses = losses_of(stage.source.anatomy, self.losses)
        if set(losses) == {"forward_kl"} and self.temperature == 1:
            return "kl"
        return " + ".join(losses)

    def objective(self, stage: Stage) -> Objective:
        """The weighted losses."""
        losses = losses_of(stage.source.anatomy, self.losses)
        self._check_kinds(stage)
        known = LossOptions(
            self.temperature,
            self.training.top_k,
            self.training.seed,
            self.relation_heads,
            self.beams,
            self.answer_tokens,
            lambda: self._shared(stage),
        )
        return Objective(tuple((weight, term_of(name, stage, known)) for name, weight in losses.items()))

    def _check_kinds(self, stage: Stage) -> None:
        mine, theirs = stage.source.anatomy, stage.original.anatomy
        if mine.kind != theirs.kind:
            raise TrainingError(
                f"the student is {called(mine)}, the teacher {called(theirs)}", fix="give one of its kind"
            )
        if self.on_policy and mine.kind != "decoder":
            raise TrainingError(
                f"on_policy is for decoders, and the student is {called(mine)}", fix="leave it out"
            )

    def _shared(self, stage: Stage) -> int | None:
        """How many ids both models have, where the student is one of its own."""
        if self.student is None:
            return None
        rows = min(stage.source.anatomy.vocab_size, stage.original.anatomy.vocab_size)
        return min(rows, shared_ids(stage.source.reader.path, stage.original.reader.path))


PASS = Distill
