"""How much memory a student needs whose blocks are read as they run, and its teacher before it."""

from __future__ import annotations

from ..model.weights import WeightSource
from .losses.objective import AT_ONCE as LOGITS_AT_ONCE
from .teacher_sweep import AT_ONCE as TEACHER_AT_ONCE


def streamed_bytes(source: WeightSource, tokens: int, learned: int, *, matrices: int, tables: int = 0) -> int:
    """Peak memory of a student whose blocks are read as they run, and of its teacher before.

    ``tokens`` are those of a micro-batch. ``learned`` numbers have their first value, change, gradient, two
    moments and best; a weight of the block that runs takes so many bytes of ``matrices``, and one of
    embedding and head, where these learn, of ``tables``. The inputs of all blocks wait, and the activations
    of one.
    """
    anatomy = source.anatomy
    block, largest, wide = 0, 0, 0
    for one in anatomy.blocks:
        weights = [linear.out_features * linear.in_features for linear in one.linears()]
        block, largest = max(block, sum(weights)), max(largest, *weights)
        wide = max(wide, one.attention.heads * one.attention.head_dim, one.mlp.up.out_features)
    states = 4 * tokens * anatomy.hidden_size
    run = 5 * states + 12 * tokens * wide
    teacher = 4 * block + 2 * 4 * TEACHER_AT_ONCE * anatomy.hidden_size + run
    head = 0 if anatomy.head is None else 20 * LOGITS_AT_ONCE * anatomy.vocab_size
    student = matrices * block + 8 * largest + len(anatomy.blocks) * states + max(2 * run, head)
    outside = source.outer_bytes() + tables * anatomy.vocab_size * anatomy.hidden_size
    return outside + max(teacher, head, 24 * learned + student)
