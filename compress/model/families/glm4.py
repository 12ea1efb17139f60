"""GLM-4: Llama's form with norms around attention and MLP, gate and up in one matrix, and a rope over
neighbouring channels of half of each head.

GLM Team, ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All Tools, 2024, arXiv 2406.12793.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._llama_like import LlamaLike, NormNames, llama_like
from ._tensors import Config

FAMILY = LlamaLike(
    max_positions=131_072,
    eps=1.5625e-7,
    norms=NormNames(attention_norm="post_self_attn_layernorm", mlp_norm="post_mlp_layernorm"),
    fused_mlp=True,
    neighbours_turn=True,
)
DEFAULT_ROTATED = 0.5


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return llama_like({"partial_rotary_factor": DEFAULT_ROTATED, **config}, shapes, FAMILY)
