"""MPT: GPT-2's form without biases, with linear biases by distance in place of positions.

MosaicML, Introducing MPT-7B: A New Standard for Open-Source, Commercially Usable LLMs, 2023.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._layer_norm_decoder import LayerNormDecoder, layer_norm_decoder
from ._tensors import ANOTHER, Config, number

FAMILY = LayerNormDecoder(
    base="transformer.",
    blocks="blocks",
    embedding="wte",
    final_norm="norm_f",
    qkv=("attn.Wqkv",),
    o="attn.out_proj",
    norm1="norm_1",
    norm2="norm_2",
    up="ffn.up_proj",
    down="ffn.down_proj",
    order="pre",
    activation_key=None,
    activation="gelu",
    eps_key="layer_norm_epsilon",
    norm_bias=False,
    biased_by_distance=True,
    count_key="n_layers",
    heads_key="n_heads",
    positions_key="max_seq_len",
)
SIZES = SizeKeys(
    ffn=None, layers="n_layers", heads=None, hidden="d_model", query_heads="n_heads", positions="max_seq_len"
)
GIVES_TUPLES = True
# What transformers computes, by setting; another value stands for a model that it computes otherwise.
ATTENTION = {"attn_type": "multihead_attention", "alibi": True, "qk_ln": False, "prefix_lm": False}
ATTENTION |= {"clip_qkv": None, "alibi_bias_max": 8}
MODEL = {"logit_scale": None, "no_bias": True}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    attention = config.get("attn_config") or {}
    if not isinstance(attention, dict):
        raise CheckpointError(f"config.json: attn_config must be a table, not {attention!r:.80}", fix=ANOTHER)
    for settings, known in ((attention, ATTENTION), (config, MODEL)):
        for key, value in known.items():
            if settings.get(key, value) not in (value, None):
                raise CheckpointError(
                    f"config.json: an MPT with {key} {settings[key]!r:.80} is not supported, only {value!r}"
                )
    if strange := next((name for name in shapes if name.endswith(".bias")), None):
        raise CheckpointError(f"tensor {strange!r} is a bias, which transformers' MPT has not")
    scaled = attention.get("softmax_scale") is not None
    plain = {key: value for key, value in config.items() if key != "head_dim"}
    scale = number(attention, "softmax_scale", 1.0) if scaled else None
    return layer_norm_decoder(plain, shapes, FAMILY, scale=scale)
