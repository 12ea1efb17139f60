"""Nomic-BERT: BERT's blocks with a rope, a gated MLP and without biases.

Nussbaum et al., Nomic Embed: Training a Reproducible Long Context Text Embedder, 2024, arXiv 2402.01613.
"""

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._rope_encoder import RopeEncoder, rope_encoder
from ._tensors import Config

FAMILY = RopeEncoder(
    prefix="nomic_bert.",
    embedding="embeddings.word_embeddings",
    head=HeadNames(dense="nomic_bert.pooler.dense", out="classifier"),
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o="self_attn.o_proj",
    norm1="post_attention_layernorm",
    gate_up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norm2="post_mlp_layernorm",
    norm_kind="layer",
    eps_key="layer_norm_eps",
    eps=1e-12,
    max_positions=2048,
    theta=1000.0,
    order="post",
    token_types="embeddings.token_type_embeddings",
    embedding_norm="embeddings.LayerNorm",
)
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return rope_encoder(config, shapes, FAMILY)
