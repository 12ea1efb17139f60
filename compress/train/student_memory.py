"""How much memory a student needs that is held whole, and one whose blocks are read as they run with its
teacher before it.
"""

from __future__ import annotations

import math

import torch

from ..measure.precision import chosen
from ..model.weights import WeightSource
from ..pipeline.algorithm import float_bytes
from .losses.objective import AT_ONCE as LOGITS_AT_ONCE
from .students.blocks_that_stay import block_cost, passing, room_of, staying
from .teacher_sweep import AT_ONCE as TEACHER_AT_ONCE
from .training_options import TrainingOptions

_FLOAT = 4
# Float32 copies of a weight that learns: where it began, its change, gradient, two moments and best value,
# and what a forward pass makes of them.
WEIGHTS = 7
# Of one behind a code also the latent weight that it is rounded from, which the way back needs.
CODES = 8
# What torch and the allocator keep between micro-batches: 60 to 240 MB on models of 67 million to 7 billion.
_KEPT = 150 << 20


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
    teacher = 4 * block + 2 * 4 * TEACHER_AT_ONCE * anatomy.hidden_size + run
    head = 0 if anatomy.head is None else 20 * LOGITS_AT_ONCE * anatomy.vocab_size
    stay = sum(costs[: staying(costs, room_of(anatomy))])
    student = stay + matrices * block + 8 * largest + len(anatomy.blocks) * states + max(2 * run, head)
    outside = source.outer_bytes() + tables * anatomy.vocab_size * anatomy.hidden_size
    return outside + max(teacher, head, 24 * learned + student + _KEPT)
