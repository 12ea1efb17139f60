"""The answers of a teacher that need not fit memory: some micro-batches at a time go through its blocks, each
of which is read once for all of them. Blocks compute in bfloat16 where the student learns in that; logits are
float32.

How much memory a student needs that is held whole, and one whose blocks are read as they run with its
teacher before it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ...terminal.progress import ProgressTask
from ..measure.reading import LAST, MAPS, Precision, States, autocast, captured, chosen, eager
from ..model.anatomy import module_name
from ..model.torch_model import round_cache
from ..model.weights import WeightSource
from ..pipeline.algorithm import float_bytes
from ..pipeline.capture import block_inputs
from ..pipeline.forward import Batch, run_block
from ..text.micro_batches import MicroBatch
from .losses.logit_terms import Answers
from .losses.objective import AT_ONCE as LOGITS_AT_ONCE
from .losses.objective import Objective, answers_from
from .students.streamed_blocks import StreamedBlocks, block_cost, passing, room_of, staying
from .training_options import TrainingOptions

AT_ONCE = 8192  # whose states wait in memory for the next block: a kill costs the answers to so many
_FLOAT = 4
# Float32 copies of a weight that learns: where it began, its change, gradient, two moments and best value,
# and what a forward pass makes of them.
WEIGHTS = 7
# Of one behind a code also the latent weight that it is rounded from, which the way back needs.
CODES = 8
# What torch and the allocator keep between micro-batches: 60 to 240 MB on models of 67 million to 7 billion.
_KEPT = 150 << 20


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


def whole_bytes(
    source: WeightSource, training: TrainingOptions, copies: float, *, embedding: bool = False
) -> int:
    """Peak memory of a student that is held whole, with so many float32 ``copies`` of the weights of its
    linears: beside them what is outside the blocks, of which the ``embedding`` may learn, a micro-batch's
    activations for the way back, the logits of some tokens, and a teacher that stays.
    """
    anatomy = source.anatomy
    inside = tuple(f"{block.prefix}." for block in anatomy.blocks)
    outside = sum(math.prod(shape) for name, shape in source.shapes.items() if not name.startswith(inside))
    halves = chosen(training.precision, torch.device("cpu")) != "float32"
    live = [passing(block, anatomy.hidden_size) for block in anatomy.blocks]
    # Gradient checkpointing keeps what enters each block, and the activations of one.
    states = anatomy.hidden_size * len(live) + max(live) if training.checkpointing else sum(live)
    held = training.micro_batch_tokens * states * (_FLOAT // 2 if halves else _FLOAT)
    logits = 0 if anatomy.head is None else 20 * LOGITS_AT_ONCE * anatomy.vocab_size
    stays = 0 if training.cache else 1
    weights = sum(map(float_bytes, anatomy.linears()))
    table = (WEIGHTS - 1) * anatomy.vocab_size * anatomy.hidden_size if embedding else 0
    return int((copies + stays) * weights) + _FLOAT * ((1 + stays) * outside + table) + held + logits


def streamed_bytes(source: WeightSource, tokens: int, learned: int, *, matrices: int, tables: int = 0) -> int:
    """Peak memory of a student whose blocks are read as they run, and of its teacher before.

    ``tokens`` are those of a micro-batch. ``learned`` numbers have their first value, change, gradient, two
    moments and best; a weight of the block that runs takes so many bytes of ``matrices``, and one of
    embedding and head, where these learn, of ``tables``. The inputs of all blocks wait, and the activations
    of one; the first blocks stay.
    """
    anatomy = source.anatomy
    block, largest, wide, costs = 0, 0, 0, []
    for one in anatomy.blocks:
        weights = [linear.out_features * linear.in_features for linear in one.linears()]
        block, largest = max(block, sum(weights)), max(largest, *weights)
        costs.append(block_cost(one, anatomy.hidden_size, tokens, matrices * sum(weights)))
        wide = max(wide, one.attention.heads * one.attention.head_dim, one.mlp.up.out_features)
    states = 4 * tokens * anatomy.hidden_size
    run = 5 * states + 12 * tokens * wide
    teacher = 4 * block + 2 * 4 * AT_ONCE * anatomy.hidden_size + run
    head = 0 if anatomy.head is None else 20 * LOGITS_AT_ONCE * anatomy.vocab_size
    stay = sum(costs[: staying(costs, room_of(anatomy))])
    student = stay + matrices * block + 8 * largest + len(anatomy.blocks) * states + max(2 * run, head)
    outside = source.outer_bytes() + tables * anatomy.vocab_size * anatomy.hidden_size
    return outside + max(teacher, head, 24 * learned + student + _KEPT)
