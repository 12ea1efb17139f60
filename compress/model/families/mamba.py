"""Mamba: selective state spaces, one in each block.

Gu, Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023, arXiv 2312.00752.
"""

from functools import partial

from ..anatomy import Anatomy, Shapes
from ..block_parts.mixer_anatomy import StateSpace
from ._state_space import LOOKS_AT_WEIGHTS, MODULES, SIZES, TENSORS, StateSpaceKeys, mamba_like, state_space
from ._tensors import Config

__all__ = ["LOOKS_AT_WEIGHTS", "SIZES", "anatomy"]


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return mamba_like(config, shapes, partial(_mixer, config, shapes), MODULES, TENSORS, tied=True)


def _mixer(config: Config, shapes: Shapes, module: str, hidden: int, eps: float) -> StateSpace:
    return state_space(config, shapes, module, hidden, StateSpaceKeys(), eps)
