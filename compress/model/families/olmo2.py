"""OLMo 2: Llama's form with norms behind attention and MLP and none before, and q and k normalized over all
heads at once.

OLMo Team, 2 OLMo 2 Furious, 2025, arXiv 2501.00656.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import BEHIND, LlamaLike, llama_like
from ._tensors import Config

FAMILY = LlamaLike(max_positions=2048, eps=1e-5, norms=BEHIND, order="behind", qk_norm="whole")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like(config, shapes, FAMILY)
