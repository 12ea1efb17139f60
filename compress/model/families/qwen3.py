"""Qwen3 (dense): Llama's form with an RMSNorm on each head of q and k, and Qwen2's optional sliding window.

Yang et al., Qwen3 Technical Report, 2025, arXiv 2505.09388.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import layer_windows
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    family = LlamaLike(max_positions=32_768, qk_norm="head")
    return llama_like(config, shapes, family, windows=layer_windows(config))
