"""ERNIE 4.5 without experts: Llama's form, in which neighbouring channels turn together.

Baidu ERNIE Team, ERNIE 4.5 Technical Report, 2025.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(max_positions=131_072, eps=1e-5, neighbours_turn=True)
THETA, HEAD_DIM = 500_000.0, 128


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    silent = {} if "head_dim" in config else {"head_dim": HEAD_DIM}
    return llama_like({"rope_theta": THETA, **silent, **config}, shapes, FAMILY)
