"""BLOOM: GPT-NeoX's packed heads, linear biases by distance in place of positions, and normed embeddings.

BigScience Workshop, BLOOM: A 176B-Parameter Open-Access Multilingual Language Model, 2022, arXiv
2211.05100.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config

BASE = "transformer."
FAMILY = LayerNormDecoder(
    base=BASE,
    blocks="h",
    embedding="word_embeddings",
    embedding_norm="word_embeddings_layernorm",
    final_norm="ln_f",
    qkv=("self_attention.query_key_value",),
    o="self_attention.dense",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    order="pre",
    activation_key=None,
    activation="gelu_new",
    eps_key="layer_norm_epsilon",
    interleaved=True,
    biased_by_distance=True,
    count_key="n_layer",
    heads_key="n_head",
    positions_key="seq_length",
)
SIZES = SizeKeys(
    ffn=None, layers="n_layer", heads=None, hidden="hidden_size", query_heads="n_head", positions="seq_length"
)
GIVES_TUPLES = True
UNSUPPORTED = ("apply_residual_connection_post_layernorm", "slow_but_exact")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    for key in UNSUPPORTED:
        if config.get(key):
            raise CheckpointError(f"config.json sets {key}: this form of BLOOM is not supported")
    # The first checkpoints were saved without their head, and so without the prefix.
    bare = "word_embeddings.weight" in shapes
    plain = {key: value for key, value in config.items() if key != "head_dim"}
    plain.setdefault("n_head", config.get("num_attention_heads"))
    found = layer_norm_decoder(plain, shapes, replace(FAMILY, base="" if bare else BASE))
    return replace(found, renamed=((FAMILY.head, FAMILY.head), ("", BASE)) if bare else ())
