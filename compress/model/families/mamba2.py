"""Mamba 2: state spaces in heads, whose decay is one number a head.

Dao, Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality, 2024, arXiv 2405.21060.
"""

from functools import partial

from ..anatomy import Anatomy, Shapes
from ._state_space import LOOKS_AT_WEIGHTS, SIZES, TENSORS, headed_state_space, mamba_like
from ._tensors import Config

__all__ = ["LOOKS_AT_WEIGHTS", "SIZES", "anatomy"]


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    mixer = partial(headed_state_space, config, shapes)
    parts = ("in_proj", "out_proj", "conv1d", "norm")
    return mamba_like(config, shapes, mixer, parts, (*TENSORS, "dt_bias"), tied=False)
