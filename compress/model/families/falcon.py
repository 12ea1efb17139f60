"""Falcon: attention and MLP side by side; one matrix holds for each key/value head its query heads, then k
and v, and in the 7B form one key/value head serves all.

Almazrouei et al., The Falcon Series of Open Language Models, 2023, arXiv 2311.16867.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys, head_size, rope
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config

FAMILY = LayerNormDecoder(
    base="transformer.",
    blocks="h",
    embedding="word_embeddings",
    final_norm="ln_f",
    qkv=("self_attention.query_key_value",),
    o="self_attention.dense",
    norm1="input_layernorm",
    norm2=None,
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    order="parallel",
    activation_key="activation",
    activation="gelu",
    eps_key="layer_norm_epsilon",
    interleaved=True,
)
GIVES_TUPLES = LOOKS_AT_WEIGHTS = True
SIZES = SizeKeys(ffn="ffn_hidden_size", heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("alibi"):
        raise CheckpointError(
            "config.json sets alibi: Falcon with biases by distance in place of a rope is not supported"
        )
    family, plain = FAMILY, {key: value for key, value in config.items() if key != "head_dim"}
    if f"{FAMILY.base}h.0.ln_mlp.weight" in shapes:
        family = replace(FAMILY, norm1="ln_attn", norm2="ln_mlp")
    elif config.get("parallel_attn") is False and not config.get("new_decoder_architecture"):
        family = replace(FAMILY, norm2="post_attention_layernorm", order="pre")
    return layer_norm_decoder(plain, shapes, family, rope=rope(plain, head_size(plain)))
