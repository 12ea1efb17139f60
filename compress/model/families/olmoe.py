"""OLMoE: Llama's form, q and k normalized over all heads, and a router before 64 small MLPs.

Muennighoff et al., OLMoE: Open Mixture-of-Experts Language Models, 2024, arXiv 2409.02060.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._experts import ExpertNames
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

SIZES = SizeKeys(experts=("num_experts", "num_local_experts"))
EXPERTS = ExpertNames(normalized=False)
FAMILY = LlamaLike(max_positions=4096, eps=1e-5, qk_norm="whole", experts=EXPERTS)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("clip_qkv") is not None:
        raise CheckpointError(
            "config.json: clip_qkv is set, and what q, k and v give is not cut to a range here",
            fix="no released OLMoE sets it; leave it out if the weights were trained without",
        )
    return llama_like(config, shapes, FAMILY)
