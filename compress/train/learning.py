"""``Learning``: what the passes that learn have in common, their options and the way to a result.

A pass says what is learned (:meth:`Learning.learner`) and from what (:meth:`Learning.objective`); by default
from the original's outputs. Part of the calibration text is held out, and the parameters that do best there
are kept: at worst those that the model came with.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...errors import TrainingError
from ..measure.reading import Precision, chosen
from ..model.anatomy import Anatomy, module_name
from ..model.weights import WeightSource
from ..pipeline.advance import Work
from ..pipeline.algorithm import ATTENDING
from ..pipeline.block import LayerStatus
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.processes import FSDP
from ..pipeline.stage import LOG, Stage, StageResult
from ..text.micro_batches import MicroBatch, held_out_tokens, hold_out, micro_batches_of
from .losses.objective import Objective, objective_for
from .students.streamed_blocks import streams
from .students.student import Student
from .teacher import CachedTeacher, LiveTeacher, Teacher
from .teacher_sweep import whole_bytes
from .train_state import LoopSettings
from .trainer import OnPolicy, Trainer, write_learned
from .training_options import TrainingOptions, own_training

_OF_THE_LOOP = {
    *("learning_rate", "batch_tokens", "seed", "warmup", "clip", "measurements"),
    *("patience", "ema", "schedule", "weight_decay"),
}
TRAINING_OF_PASS = "how it trains, over the recipe's own training section; see `recipe passes training`"


class Learning(ModelPass):
    """Options of every pass that learns."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    together: ClassVar[bool] = True
    training: TrainingOptions = Field(TrainingOptions(), description=TRAINING_OF_PASS)

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, data: Any) -> Any:
        return own_training(cls, data)

    @property
    def max_seconds(self) -> float | None:
        return None if self.training.max_time is None else 60 * self.training.max_time

    @property
    def calibrated(self) -> bool:
        return True

    def work(self, load: Workload) -> Work:
        """The teacher, three passes a step, and the measurements of what is held out, after each of which
        what a killed run goes on from is written.
        """
        training, tokens, learned = self.training, load.tokens, self.learned_tokens(load.tokens)
        measured = training.measurements + 1
        held_out = held_out_tokens(tokens) * measured
        asked = tokens if training.cache else learned + held_out
        once_more = load.blocks if training.checkpointing else 0.0
        products = (asked + held_out) * load.forward + learned * (load.backward + once_more)
        return Work(products, stored=measured * self._state_bytes(load.anatomy, load.scales))

    def working_bytes(self, weights: int) -> int:
        """Nothing beside :meth:`sweep_bytes`, which each pass that learns has."""
        return 0

    def disk_bytes(self, anatomy: Anatomy, tokens: int, scales: int) -> int:
        """The teacher's answers, of a decoder logits with their places, of others states; and what a killed
        run goes on from, two of them while the new one is written.
        """
        return 2 * self._state_bytes(anatomy, scales) + self._answers_bytes(anatomy, tokens)

    def disk_bytes_at_end(self, anatomy: Anatomy, tokens: int, scales: int) -> int:
        """The teacher's answers, and of the numbers that learned the best."""
        return 4 * self.learned_numbers(anatomy, scales) + self._answers_bytes(anatomy, tokens)

    def _answers_bytes(self, anatomy: Anatomy, tokens: int) -> int:
        if self.teacher_stays:
            return 0
        decodes = anatomy.kind != "encoder"
        return tokens * (
            8 * min(self.training.top_k, anatomy.vocab_size) if decodes else 4 * anatomy.hidden_size
        )

    def learned_tokens(self, tokens: int) -> int:
        """How many it learns from of so many ``tokens`` of text, one that is read again counted again."""
        return tokens * self.training.epochs if self.training.tokens is None else self.training.tokens

    def _state_bytes(self, anatomy: Anatomy, scales: int) -> int:
        """The parameters, their best values, two moments, and the average where there is one."""
        return 4 * (4 + bool(self.training.ema)) * self.learned_numbers(anatomy, scales)

    def learned_numbers(self, anatomy: Anatomy, scales: int) -> int:
        """How many numbers learn, norms and biases left out, when the codes have so many ``scales``; by
        default the weights of the linears.
        """
        return sum(linear.out_features * linear.in_features for linear in self.selected(anatomy))

    @property
    def teacher_stays(self) -> bool:
        """Whether the teacher is in memory beside the student, and asked every time."""
        return not self.training.cache

    def held_bytes(self, source: WeightSource, copies: float, *, embedding: bool = False) -> int:
        """Peak memory where the student is held whole: see :func:`.teacher_sweep.whole_bytes`."""
        return whole_bytes(source, self.training, copies, embedding=embedding)

    @property
    def lighter(self) -> str:
        return f"GPUs share a model that learns: {FSDP}"

    def streams(self, stage: Stage) -> bool:
        """Whether the student of a pass in which no matrix learns reads its blocks as they run: not where it
        is spread over processes, nor where it writes, a token at a time.
        """
        alone = not stage.processes.sharded and self.on_policy_writing() is None
        return alone and streams(stage.source, stage.device)

    def learner(self, stage: Stage) -> Student:
        """The model of ``stage`` with what should learn, and ``learned`` not empty."""
        raise TypeError(f"{type(self).__name__} does not define learner")

    def objective(self, stage: Stage) -> Objective:
        """What is made small; by default the distance from the original's outputs."""
        return objective_for(stage.source.anatomy, self.training.top_k)

    def teacher(self, stage: Stage, objective: Objective) -> Teacher:
        """Whom the student learns from; by default the original, whose answers are written down."""
        if self.teacher_stays:
            return LiveTeacher(stage.original.reader.path, objective, stage.device, stage.processes)
        reader, directory = stage.original.reader, stage.directory / "teacher"
        if stage.answers is not None:
            directory = stage.answers / reader.fingerprint()[:24]
        precision = self._teachers_precision(stage)
        return CachedTeacher(reader.path, directory, objective, stage.device, stage.processes, precision)

    def _teachers_precision(self, stage: Stage) -> Precision:
        """That of the student, where it has float32's range: a teacher has no loss to scale."""
        return "bfloat16" if chosen(self.training.precision, stage.device) == "bfloat16" else "float32"

    def on_policy_writing(self) -> OnPolicy | None:
        """How the student writes what it learns from; None where all is given."""
        return None

    def measure(self, stage: Stage) -> str:
        """How the held-out loss is called."""
        if stage.source.anatomy.labels_texts:
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
        """Learn, and write the model with its new parameters."""
        if stage.processes.sharded and stage.source.anatomy.kind == "encoder_decoder":
            raise TrainingError(
                "an encoder–decoder cannot be spread over processes (FSDP) yet",
                why="its decoder is not run through the module that gathers the blocks",
                fix="launch without FSDP: every process then holds all of it",
            )
        micro_batches = micro_batches_of(
            stage.text(type(self).__name__.lower()), self.training.micro_batch_tokens
        )
        objective = self.objective(stage)
        teacher = self.teacher(stage, objective)
        teacher.prepare(micro_batches, stage.progress)
        learned_from, held_out = hold_out(teacher.sound(micro_batches, stage.progress))
        own = self.on_policy_writing()
        student = self._student(stage, objective, own)
        precision = chosen(self.training.precision, stage.device)
        trainer = Trainer(objective, teacher, learned_from, held_out, precision, stage.processes, own)
        train_state = trainer.fit(
            student,
            self._settings(stage, learned_from),
            stage.progress,
            lambda done: self.before_step(student, done),
        )
        return write_learned(student, stage, train_state, trainer, self.measure(stage), self.statuses)

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
        if self.training.checkpointing and student.streamed is None:
            checkpoint_blocks(student.blocks())
        if sharded:
            student.spread(stage.device, stage.processes)
        return student

    def _settings(self, stage: Stage, micro_batches: list[MicroBatch]) -> LoopSettings:
        options, text = self.training, sum(batch.tokens for batch in micro_batches)
        return LoopSettings(
            state=stage.directory / "loop.pt",
            log=stage.directory / LOG,
            tokens=options.tokens or options.epochs * text,
            max_seconds=self.max_seconds,
            **options.model_dump(include=_OF_THE_LOOP),
        )


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


def checkpoint_blocks(blocks: nn.ModuleList) -> None:
    """Let each of ``blocks`` forget its activations in the forward pass; values and gradients stay."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
