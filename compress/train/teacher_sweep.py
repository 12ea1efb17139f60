"""The answers of a teacher that need not fit memory: some micro-batches at a time go through its blocks, each
of which is read once for all of them. Blocks compute in bfloat16 where the student learns in that; logits are
float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ...terminal.progress import ProgressTask
from ..measure.precision import Precision, autocast
from ..measure.reading import LAST, MAPS, States, captured, eager
from ..model.anatomy import module_name
from ..model.torch_model import round_cache
from ..model.weights import WeightSource
from ..pipeline.capture import block_inputs
from ..pipeline.forward import Batch, run_block
from ..text.micro_batches import MicroBatch
from .losses.objective import Objective, answers_from
from .losses.term import Answers
from .students.streamed_blocks import StreamedBlocks

AT_ONCE = 8192  # whose states wait in memory for the next block: a kill costs the answers to so many


class TeacherSweep:
    """Asks the model of ``source`` on ``device`` under ``objective``; one that :func:`.streams` says."""

    def __init__(
        self,
        source: WeightSource,
        objective: Objective,
        device: torch.device,
        precision: Precision = "float32",
    ) -> None:
        self.objective, self.device, self.anatomy = objective, device, source.anatomy
        self.precision = precision
        self.blocks = StreamedBlocks(source, device)
        self.model = self.blocks.model
        round_cache(self.model, source)

    def answers(
        self, micro_batches: Sequence[MicroBatch], task: ProgressTask
    ) -> Iterator[tuple[MicroBatch, Answers]]:
        """To each of ``micro_batches``, which count 1 of ``task``."""
        if not any(term.needs_teacher for _, term in self.objective.terms):
            for batch in micro_batches:
                yield batch, answers_from(self.objective, self.model, {}, batch)
                task.advance(1)
            return
        for group in self._groups(micro_batches):
            for batch, states in zip(group, self._states(group, task), strict=True):
                yield batch, answers_from(self.objective, self.model, states, batch)

    def _groups(self, micro_batches: Sequence[MicroBatch]) -> Iterator[list[MicroBatch]]:
        """What goes through the blocks at once: the more states are read, the fewer tokens."""
        most = AT_ONCE // (1 + len(self.objective.teacher_taps))
        group: list[MicroBatch] = []
        for batch in micro_batches:
            if group and sum(one.attention_mask.numel() for one in (*group, batch)) > most:
                yield group
                group = []
            group.append(batch)
        if group:
            yield group

    def _states(self, group: Sequence[MicroBatch], task: ProgressTask) -> list[States]:
        """Of each micro-batch what :func:`..measure.reading.read` finds."""
        taps = self.objective.teacher_taps
        found: list[States] = [{} for _ in group]
        maps = any(map(_is_map, taps))
        computes = autocast(self.precision, self.device)
        with torch.no_grad(), computes, eager(self.model) if maps else nullcontext():
            masks = [_mask(batch, self.device) for batch in group]
            entered = [
                block_inputs(self.blocks.skeleton, self.model, batch.input_ids.to(self.device), mask)
                for batch, mask in zip(group, masks, strict=True)
            ]
            hidden, arguments = [states for states, _ in entered], [one for _, one in entered]
            for index in range(len(self.anatomy.blocks)):
                here, module = self._taps_in(index, taps), self.blocks.module(index)
                with self.blocks.loaded(index):
                    for number, states in enumerate(hidden):
                        with captured(self.model, here) as outputs:
                            hidden[number] = run_block(module, Batch(states, arguments[number][index], None))
                        found[number] |= _rows(outputs, masks[number])
                        task.advance(1 / len(self.anatomy.blocks))
            for states, mask, one in zip(hidden, masks, found, strict=True):
                one |= _rows({LAST: self._normed(states)}, mask)
        return found

    def _taps_in(self, index: int, taps: Mapping[str, str]) -> dict[str, str]:
        path = module_name(self.anatomy, self.anatomy.blocks[index].prefix)
        return {name: tap for name, tap in taps.items() if f"{tap}.".startswith(f"{path}.")}

    def _normed(self, hidden: Tensor) -> Tensor:
        norm = self.anatomy.final_norm
        normed: Tensor = hidden if norm is None else self.blocks.skeleton.submodule(norm.name)(hidden)
        return normed


def _mask(batch: MicroBatch, device: torch.device) -> Tensor | None:
    """Of the real tokens; None where all are."""
    return None if bool(batch.attention_mask.all()) else batch.attention_mask.to(device)


def _is_map(name: str) -> bool:
    return name.startswith(MAPS)


def _rows(states: States, mask: Tensor | None) -> States:
    """Of the real tokens."""
    if mask is None:
        return {name: value.flatten(0, 1) for name, value in states.items()}
    rows = mask.bool()
    return {name: value[rows] for name, value in states.items()}
