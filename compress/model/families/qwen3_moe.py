"""Qwen3 as a mixture of experts: Qwen3's attention, and a router before many small MLPs.

Yang et al., Qwen3 Technical Report, 2025, arXiv 2505.09388.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys, layer_windows
from ._experts import ExpertNames
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

SIZES = SizeKeys(experts=("num_experts", "num_local_experts"))
EXPERTS = ExpertNames(normalized=False)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    family = LlamaLike(max_positions=32_768, qk_norm="head", experts=EXPERTS)
    return llama_like(config, shapes, family, windows=layer_windows(config))
