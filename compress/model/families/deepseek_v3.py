"""DeepSeek-V3: latent attention, and after the first layers a router of groups before many small experts,
beside one that every token goes through.

DeepSeek-AI, DeepSeek-V3 Technical Report, 2024, arXiv 2412.19437.
"""

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._experts import ExpertNames, RouterNames
from ._latent_attention import latent_rope
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer

# head_dim is that of the rotated channels.
SIZES = SizeKeys(heads=None, experts=("n_routed_experts", "num_local_experts", "num_experts"))
ROUTER = RouterNames(correction="e_score_correction_bias")
EXPERTS = ExpertNames(normalized=True, shared="shared_experts", shared_last=True, router_form=ROUTER)
FAMILY = LlamaLike(max_positions=4096, latent=True, experts=EXPERTS)
# What transformers takes where the config is silent.
DEFAULTS = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "routed_scaling_factor": 2.5,
}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    config = {**DEFAULTS, **config}
    count = integer(config, "num_hidden_layers")
    return llama_like(config, shapes, FAMILY, ropes=[latent_rope(config)] * count)
