"""Which blocks of a streamed student stay in memory: the first ones, for as long as their matrices and what
they keep for the way back fit into a small room.

A block that stays is read once, and is not computed again on the way back, which is a third of the products
of a step. Of a small model all blocks may stay; of one with billions of parameters one or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ...model.anatomy import Anatomy
from ...model.block_anatomy import BlockAnatomy

# A quarter of what a process with torch and a small model takes in any case. Without it 8 steps of a model of
# 135 million weights take 1.4 times the processor time of blocks that all stay.
_MOST = 256 << 20
_FLOAT = 4


def room_of(anatomy: Anatomy) -> int:
    """Bytes in which blocks may stay: less than a model that is held whole has in float, so that one which
    streams takes less.
    """
    weights = sum(linear.out_features * linear.in_features for linear in anatomy.linears())
    return min(_MOST, _FLOAT * weights)


def passing(block: BlockAnatomy, hidden: int) -> int:
    """How many numbers a token of ``hidden`` channels leaves in a block for the way back."""
    mlp = block.feed_forward
    # Behind each norm, what is added to the residual, and the mixer's; of the MLP up, gate and their product.
    return 6 * hidden + block.mixer.live + (0 if mlp is None else 4 * mlp.up.out_features)


def block_cost(block: BlockAnatomy, hidden: int, tokens: int, matrices: int) -> int:
    """Bytes of a block that stays while ``tokens`` pass, with its ``matrices`` of so many bytes."""
    return matrices + _FLOAT * tokens * passing(block, hidden)


def staying(costs: Sequence[int], room: int) -> int:
    """How many of the first blocks, with such ``costs`` in bytes, stay in ``room``."""
    return sum(total <= room for total in accumulate(costs))
