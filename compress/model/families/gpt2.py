"""GPT-2: learned positions, LayerNorm, and q, k and v in one matrix. Linears are stored ``[in, out]``.

Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import BlockAnatomy
from ._config import SizeKeys
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

BASE = "transformer."
FAMILY = LayerNormDecoder(
    base=BASE,
    blocks="h",
    embedding="wte",
    final_norm="ln_f",
    qkv=("attn.c_attn",),
    o="attn.c_proj",
    norm1="ln_1",
    norm2="ln_2",
    up="mlp.c_fc",
    down="mlp.c_proj",
    order="pre",
    activation_key="activation_function",
    activation="gelu_new",
    eps_key="layer_norm_epsilon",
    position_embedding="wpe",
    count_key="n_layer",
    heads_key="n_head",
    buffers=frozenset({"attn.bias", "attn.masked_bias"}),
)
SIZES = SizeKeys(
    ffn="n_inner",
    layers="n_layer",
    heads=None,
    hidden="n_embd",
    query_heads="n_head",
    positions="n_positions",
)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("add_cross_attention"):
        raise CheckpointError("config.json sets add_cross_attention: this is not a plain decoder")
    # The first checkpoints were saved without their head, and so without the prefix.
    bare = "wte.weight" in shapes
    plain = {key: value for key, value in config.items() if key != "head_dim"}
    found = layer_norm_decoder(plain, shapes, replace(FAMILY, base="" if bare else BASE))
    blocks = tuple(_scaled(block, config) for block in found.blocks)
    renamed = ((FAMILY.head, FAMILY.head), ("", BASE)) if bare else ()
    return replace(found, blocks=blocks, renamed=renamed)


def _scaled(block: BlockAnatomy, config: Config) -> BlockAnatomy:
    attention = block.attention
    scale = 1.0 if config.get("scale_attn_weights") is False else attention.head_dim**-0.5
    if config.get("scale_attn_by_inverse_layer_idx"):
        scale /= block.index + 1
    return replace(block, mixer=replace(attention, scale=scale))
