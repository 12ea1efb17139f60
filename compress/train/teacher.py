"""What the teacher says about each micro-batch: asked once and kept on disk, so that it need not stay in
memory; or asked again every time, where its answers are larger than it is worth to keep.
"""

import gc
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ...errors import CheckpointError
from ...files.storage import write_atomic
from ...files.third_party_errors import third_party_errors_are_typed
from ...terminal.progress import Progress, ProgressTask
from ..measure.reading import Precision
from ..model.torch_model import round_cache
from ..model.weights import WeightSource
from ..pipeline.device import return_small_blocks
from ..pipeline.forward import require_few
from ..pipeline.journal import SEAL_BYTES, ends_with_seal
from ..pipeline.processes import ALONE, Processes
from ..text.micro_batches import MicroBatch
from .losses.logit_terms import Answers, Term
from .losses.objective import Objective, ask
from .students.relative import load_spread
from .students.streamed_blocks import StreamedBlocks, streams
from .teacher_sweep import TeacherSweep


class Teacher(Protocol):
    """Who knows the answers."""

    def prepare(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> None:
        """Get ready to be asked about ``micro_batches``."""

    def sound(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> list[MicroBatch]:
        """Those of ``micro_batches``, which were prepared, save what has NaN or infinity in the answer."""

    def answers(self, batch: MicroBatch) -> Answers:
        """What is said about ``batch``, by name of term and tensor."""


class CachedTeacher:
    """The answers of the model at ``path``, kept in ``directory``, which holds those of no other model.

    A file is named by the hash of the micro-batch and of the terms that it answers to, and is there whole or
    not at all, so that several runs may share it. Of several processes each asks about its share.
    """

    def __init__(
        self,
        path: Path,
        directory: Path,
        objective: Objective,
        device: torch.device,
        processes: Processes = ALONE,
        precision: Precision = "float32",
    ) -> None:
        self.path, self.directory, self.objective, self.device = path, directory, objective, device
        self.processes, self.precision = processes, precision

    def _file(self, batch: MicroBatch) -> Path:
        asked = [(term.name, _settings(term)) for _, term in self.objective.terms]
        digest = hashlib.sha256(f"{asked}{self.precision}{tuple(batch.input_ids.shape)}".encode())
        for part in (batch,) if batch.answers is None else (batch, batch.answers):
            digest.update(part.input_ids.numpy().tobytes() + part.attention_mask.numpy().tobytes())
        return self.directory / f"{digest.hexdigest()[:24]}.safetensors"

    def prepare(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> None:
        """Ask about the micro-batches that have no answer yet, or a damaged one."""
        missing = [
            batch for batch in self.processes.share(micro_batches) if not ends_with_seal(self._file(batch))
        ]
        # Of a sharded teacher all gather the parameters: who has its answers asks along, about anything.
        count = self.processes.most(len(missing)) if self.processes.sharded else len(missing)
        if count:
            self._ask(missing, [micro_batches[0]] * (count - len(missing)), progress)
        self.processes.meet()

    def _ask(self, missing: Sequence[MicroBatch], along: Sequence[MicroBatch], progress: Progress) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with progress.task("asking the original", len(missing)) as task:
            for batch, answers in self._answers(missing, along, task):
                data = save(answers)
                write_atomic(self._file(batch), data + hashlib.sha256(data).digest())
        gc.collect()  # the modules of a model refer to each other
        return_small_blocks()  # learning keeps what is free

    def _answers(
        self, missing: Sequence[MicroBatch], along: Sequence[MicroBatch], task: ProgressTask
    ) -> Iterator[tuple[MicroBatch, Answers]]:
        """To all that are ``missing``; what is asked ``along`` does not count."""
        source = WeightSource.open(self.path)
        two = source.anatomy.kind == "encoder_decoder"
        if not two and _streams(source, self.objective, self.device, self.processes):
            sweep = TeacherSweep(source, self.objective, self.device, self.precision)
            yield from sweep.answers(missing, task)
            return
        model = _model(source, self.objective, self.device, self.processes)
        for batch in missing:
            yield batch, ask(self.objective, model, batch, self.device)
            task.advance(1)
        for batch in along:
            ask(self.objective, model, batch, self.device)

    def sound(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> list[MicroBatch]:
        kept = [batch for batch in micro_batches if all(map(_all_finite, self.answers(batch).values()))]
        left_out = len(micro_batches) - len(kept)
        require_few(left_out, len(micro_batches), "the original")
        if left_out:
            progress.note(f"{left_out} of {len(micro_batches)} micro-batches are left out: not finite")
        return kept

    def answers(self, batch: MicroBatch) -> Answers:
        """As it was said."""
        file = self._file(batch)
        with third_party_errors_are_typed(lambda why: _damaged(file, why)):
            answers: Answers = load(file.read_bytes()[:-SEAL_BYTES])
        return answers


class LiveTeacher:
    """The model at ``path``, which answers whenever it is asked."""

    def __init__(
        self, path: Path, objective: Objective, device: torch.device, processes: Processes = ALONE
    ) -> None:
        self.objective, self.device = objective, device
        self.model = _model(WeightSource.open(path), objective, device, processes)

    def prepare(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> None:
        """Nothing to do."""

    def sound(self, micro_batches: Sequence[MicroBatch], progress: Progress) -> list[MicroBatch]:
        """All of them: what they give is not known before they are learned from."""
        return list(micro_batches)

    def answers(self, batch: MicroBatch) -> Answers:
        return ask(self.objective, self.model, batch, self.device)


def _streams(source: WeightSource, objective: Objective, device: torch.device, processes: Processes) -> bool:
    """Whether the blocks of a teacher are read as they run: not for each token that it writes."""
    writes = any(term.writes for _, term in objective.terms)
    return not processes.sharded and not writes and streams(source, device)


def _model(
    source: WeightSource, objective: Objective, device: torch.device, processes: Processes
) -> nn.Module:
    """Who is asked one micro-batch after the other."""
    if not _streams(source, objective, device, processes):
        return load_spread(source.reader.path, device, processes).requires_grad_(False)
    model = StreamedBlocks(source, device).model
    round_cache(model, source)
    return model


def _settings(term: Term) -> dict[str, object]:
    """The names and numbers of a term, which decide with its kind what it asks."""
    plain = {key: value for key, value in vars(term).items() if isinstance(value, str | int | float | None)}
    return {**plain, "asked": dict(term.teacher_taps)}


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} does not hold what the original says", why=why, fix="remove it: it is asked again"
    )


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
