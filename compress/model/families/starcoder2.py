"""StarCoder 2: LayerNorm, an MLP of two linears, and rotary grouped-query attention with a sliding window.

Lozhkov et al., StarCoder 2 and The Stack v2: The Next Generation, 2024, arXiv 2402.19173.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import rope
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config, integer

FAMILY = LayerNormDecoder(
    base="model.",
    blocks="layers",
    embedding="embed_tokens",
    final_norm="norm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o="self_attn.o_proj",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    up="mlp.c_fc",
    down="mlp.c_proj",
    order="pre",
    activation_key="hidden_act",
    activation="gelu_pytorch_tanh",
    eps_key="norm_epsilon",
    max_positions=4096,
)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    heads = integer(config, "num_attention_heads")
    head_dim = integer(config, "head_dim", integer(config, "hidden_size") // heads or None)
    found = layer_norm_decoder(config, shapes, FAMILY, rope=rope(config, head_dim))
    window = None if config.get("sliding_window") is None else integer(config, "sliding_window")
    blocks = tuple(
        replace(block, mixer=replace(block.attention, sliding_window=window)) for block in found.blocks
    )
    return replace(found, blocks=blocks)
