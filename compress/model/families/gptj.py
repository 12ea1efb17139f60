"""GPT-J: attention and MLP side by side after one LayerNorm; neighbouring channels turn together in a part of
each head.

Wang and Komatsuzaki, GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model, 2021.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Rope
from ._config import DEFAULT_THETA
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import Config, integer
from .gpt2 import SIZES

__all__ = ["SIZES", "anatomy"]

FAMILY = LayerNormDecoder(
    base="transformer.",
    blocks="h",
    embedding="wte",
    final_norm="ln_f",
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    o="attn.out_proj",
    norm1="ln_1",
    norm2=None,
    up="mlp.fc_in",
    down="mlp.fc_out",
    order="parallel",
    activation_key="activation_function",
    activation="gelu_new",
    eps_key="layer_norm_epsilon",
    count_key="n_layer",
    heads_key="n_head",
    buffers=frozenset({"attn.bias", "attn.masked_bias"}),
)
ROTATED, POSITIONS = 64, 2048


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if "rotary_dim" in config and config["rotary_dim"] is None:
        raise CheckpointError(
            "config.json: rotary_dim is null: GPT-J without a rope per head is not supported"
        )
    turned, head_dim = (
        integer(config, "rotary_dim", ROTATED),
        integer(config, "n_embd") // integer(config, "n_head"),
    )
    if turned % 2 or turned > head_dim:
        raise CheckpointError(
            f"config.json: rope turns {turned} of {head_dim} channels; it needs pairs within a head"
        )
    plain = {key: value for key, value in config.items() if key != "head_dim"}
    plain["max_position_embeddings"] = integer(config, "n_positions", POSITIONS)
    rope = Rope(DEFAULT_THETA, turned, interleaved=True)
    return layer_norm_decoder(plain, shapes, FAMILY, rope=rope)
