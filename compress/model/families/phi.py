"""Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side after one norm, part of each head rotary.

Li et al., Textbooks Are All You Need II: phi-1.5 technical report, 2023, arXiv 2309.05463.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import rope
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config, integer

FAMILY = LayerNormDecoder(
    base="model.",
    blocks="layers",
    embedding="embed_tokens",
    final_norm="final_layernorm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o="self_attn.dense",
    norm1="input_layernorm",
    norm2=None,
    up="mlp.fc1",
    down="mlp.fc2",
    order="parallel",
    activation_key="hidden_act",
    activation="gelu_new",
    eps_key="layer_norm_eps",
)
DEFAULT_ROTATED = 0.5


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("qk_layernorm"):
        raise CheckpointError("config.json sets qk_layernorm: Phi with norms of q and k is not supported")
    heads = integer(config, "num_attention_heads")
    head_dim = integer(config, "head_dim", integer(config, "hidden_size") // heads or None)
    turned = rope({"partial_rotary_factor": DEFAULT_ROTATED, **config}, head_dim)
    return layer_norm_decoder(config, shapes, FAMILY, rope=turned)
