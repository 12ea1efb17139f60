"""OPT: learned positions behind two unused rows, LayerNorm, an MLP of two linears.

Zhang et al., OPT: Open Pre-trained Transformer Language Models, 2022, arXiv 2205.01068.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config

FAMILY = LayerNormDecoder(
    base="model.decoder.",
    blocks="layers",
    embedding="embed_tokens",
    final_norm="final_layer_norm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o="self_attn.out_proj",
    norm1="self_attn_layer_norm",
    norm2="final_layer_norm",
    up="fc1",
    down="fc2",
    order="pre",
    activation_key="activation_function",
    activation="relu",
    position_embedding="embed_positions",
    position_offset=2,
)
SIZES = SizeKeys(ffn="ffn_dim", heads=None)
FLATTENS_TOKENS = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("do_layer_norm_before") is False or config.get("_remove_final_layer_norm"):
        raise CheckpointError(
            "config.json describes an OPT that normalises after its sums (do_layer_norm_before, "
            "_remove_final_layer_norm): this form is not supported"
        )
    if config.get("word_embed_proj_dim") not in (None, config.get("hidden_size")):
        raise CheckpointError(
            "config.json: embeddings of another width than the blocks (word_embed_proj_dim) are not supported"
        )
    return layer_norm_decoder(config, shapes, FAMILY)
