"""DeBERTa-v2 and v3: BERT's form, whose attention reads the distance between two tokens beside the tokens.

He et al., DeBERTa: Decoding-enhanced BERT with Disentangled Attention, 2020, arXiv 2006.03654; DeBERTaV3,
2021, arXiv 2111.09543.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, RelativePositions, Shapes
from ._bert_like import BertLike, BlockNames, bert_like
from ._config import SizeKeys
from ._encoder_head import ACTIVATIONS, HeadNames
from ._tensors import Config, integer, norm, number, shape_of, text

FAMILY = BertLike(
    prefix="deberta.",
    head=HeadNames(dense="pooler.dense", out="classifier", activation="gelu"),
    positions=False,
    block=BlockNames(
        q="attention.self.query_proj", k="attention.self.key_proj", v="attention.self.value_proj"
    ),
)
SIZES = SizeKeys(heads=None)
GIVES_TUPLES = True
EPS = 1e-7
BOTH = {"c2p", "p2c"}
# A score is the sum of three products.
PRODUCTS = 3
# What is supported, by setting, and transformers' default.
FORM = {
    "relative_attention": (True, False),
    "share_att_key": (True, False),
    "position_biased_input": (False, True),
}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    _check_form(config, shapes)
    found = bert_like({"layer_norm_eps": EPS, **config}, shapes, replace(FAMILY, head=_head(config)))
    base, hidden = found.base, found.hidden_size
    silent = (None, -1)
    farthest = found.max_positions
    if config.get("max_relative_positions") not in silent:
        farthest = integer(config, "max_relative_positions")
    logarithmic = config.get("position_buckets") not in silent
    span = integer(config, "position_buckets") if logarithmic else farthest
    table, normed = f"{base}encoder.rel_embeddings", f"{base}encoder.LayerNorm"
    shape_of(shapes, f"{table}.weight", 2 * span, hidden)
    kinds = text(config, "norm_rel_ebd", "none").lower().split("|")
    scaled = "layer_norm" in [kind.strip() for kind in kinds]
    eps = number(config, "layer_norm_eps", EPS)
    relative = RelativePositions(
        table,
        span,
        norm(shapes, normed, "layer", eps, hidden) if scaled else None,
        farthest if logarithmic else None,
    )
    blocks = (
        replace(block, mixer=replace(block.attention, scale=(PRODUCTS * block.attention.head_dim) ** -0.5))
        for block in found.blocks
    )
    return replace(found, blocks=tuple(blocks), relative=relative)


def _check_form(config: Config, shapes: Shapes) -> None:
    for key, (supported, default) in FORM.items():
        if config.get(key, default) is not supported:
            raise CheckpointError(
                f"config.json: a DeBERTa with {key} {config.get(key, default)!r:.80} is not supported, only "
                f"{supported!r}"
            )
    kinds = config.get("pos_att_type") or []
    kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or {str(kind).strip() for kind in kinds} != BOTH:
        raise CheckpointError(f"config.json: pos_att_type {kinds!r:.80} is not supported, only p2c with c2p")
    for part in ("encoder.conv.conv", "embeddings.embed_proj"):
        if any(name.endswith(f"{part}.weight") for name in shapes):
            raise CheckpointError(f"tensor {part + '.weight'!r}: a DeBERTa that has one is not supported")


def _head(config: Config) -> HeadNames:
    named = text(config, "pooler_hidden_act", "gelu")
    activation = next((known for known in ACTIVATIONS if known == named), None)
    if activation is None:
        raise CheckpointError(f"config.json: pooler_hidden_act {named!r} is not supported")
    return replace(FAMILY.head, activation=activation)
