"""GPT-NeoX and Pythia: attention and MLP side by side, each behind its own norm; q, k and v of one head after
the other in one matrix; rotary positions in part of a head.

Black et al., GPT-NeoX-20B: An Open-Source Autoregressive Language Model, 2022, arXiv 2204.06745.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys, rope
from ._layer_norm_decoder import HEAD, LayerNormDecoder, layer_norm_decoder
from ._tensors import Config, integer

FAMILY = LayerNormDecoder(
    base="gpt_neox.",
    blocks="layers",
    embedding="embed_in",
    final_norm="final_layer_norm",
    qkv=("attention.query_key_value",),
    o="attention.dense",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    order="parallel",
    activation_key="hidden_act",
    activation="gelu",
    eps_key="layer_norm_eps",
    interleaved=True,
    buffers=frozenset({"attention.bias", "attention.masked_bias"}),
    head="embed_out",
)
DEFAULT_ROTATED = 0.25
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    family = FAMILY if config.get("use_parallel_residual") is not False else replace(FAMILY, order="pre")
    plain = {key: value for key, value in config.items() if key != "head_dim"}
    heads = integer(config, "num_attention_heads")
    head_dim = max(1, integer(config, "hidden_size") // heads)
    turned = rope(
        {
            "rope_theta": config.get("rotary_emb_base"),
            "partial_rotary_factor": config.get("rotary_pct", DEFAULT_ROTATED),
            **plain,
        },
        head_dim,
    )
    found = layer_norm_decoder(plain, shapes, family, rope=turned)
    return replace(found, renamed=((f"{family.head}", HEAD),))
