"""EuroBERT: Llama's blocks, whose attention sees the whole text.

Boizard et al., EuroBERT: Scaling Multilingual Encoders for European Languages, 2025, arXiv 2503.05500.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._rope_encoder import RopeEncoder, pooling_of, rope_encoder
from ._tensors import Config

FAMILY = RopeEncoder(
    prefix="model.",
    embedding="embed_tokens",
    head=HeadNames(dense="dense", out="classifier", activation="gelu"),
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o="self_attn.o_proj",
    norm1="input_layernorm",
    gate_up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norm2="post_attention_layernorm",
    norm_kind="rms",
    eps_key="rms_norm_eps",
    eps=1e-5,
    max_positions=8192,
    theta=10_000.0,
    final_norm="norm",
)
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    head = replace(FAMILY.head, pooling=pooling_of(config, "late"))
    return rope_encoder(config, shapes, replace(FAMILY, head=head))
