"""BitNet b1.58: Llama's form with norms inside attention and MLP, before o and before down, and squared ReLU.

Ma et al., BitNet b1.58 2B4T Technical Report, 2025, arXiv 2504.12285.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(max_positions=2048, inner_norms=True, activation="relu2", eps=1e-5)
THETA = 500_000.0


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like({"rope_theta": THETA, **config}, shapes, FAMILY)
