"""Encoders in BERT's form: post-norm blocks with LayerNorm, learned positions, a plain MLP.

BERT, RoBERTa, DistilBERT, ELECTRA and MPNet differ in names, in the first position, in the width of the
embedding and in whether scores are biased by distance, so a family is a table of names.
"""

from dataclasses import dataclass, fields, replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp
from ._encoder_head import HeadNames, with_head
from ._tensors import ANOTHER, Config, check_blocks, heads_in, integer, linear, norm, number, shape_of, text

EMBEDDING = "embeddings.word_embeddings"


@dataclass(frozen=True)
class BlockNames:
    """The modules of a block, relative to it."""

    q: str = "attention.self.query"
    k: str = "attention.self.key"
    v: str = "attention.self.value"
    o: str = "attention.output.dense"
    norm1: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm2: str = "output.LayerNorm"

    def all(self) -> frozenset[str]:
        """Every module that a block has."""
        return frozenset(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True)
class BertLike:
    """What tells one family from another: module names, and the config keys of its sizes.

    ``prefix`` is the module that a checkpoint with a head keeps the encoder in; without a head there is none.
    ``head`` is the classifier's names; ``positions`` says whether there is a table of them. ``projection``
    leads from embeddings of another width to the hidden size, where it is stored; ``position_bias`` is the
    table of biases by distance; ``shared`` is whether one block serves all layers.
    """

    prefix: str
    head: HeadNames
    positions: bool = True
    blocks: str = "encoder.layer"
    block: BlockNames = BlockNames()
    count_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    activation_key: str = "hidden_act"
    eps_key: str | None = "layer_norm_eps"
    projection: str | None = None
    position_bias: str | None = None
    shared: bool = False


def bert_like(config: Config, shapes: Shapes, family: BertLike, *, position_offset: int = 0) -> Anatomy:
    """The anatomy of an encoder whose first token reads row ``position_offset`` of the position table."""
    _check_plain_encoder(config)
    base = family.prefix if f"{family.prefix}{EMBEDDING}.weight" in shapes else ""
    layers = integer(config, family.count_key)
    count, repeats = (1, layers) if family.shared else (layers, 1)
    blocks_name = f"{base}{family.blocks}"
    check_blocks(shapes, blocks_name, count, family.block.all())
    vocabulary, width = shape_of(shapes, f"{base}{EMBEDDING}.weight", None, None)
    projection = f"{base}{family.projection}"
    projected = family.projection is not None and f"{projection}.weight" in shapes
    if projected and config.get("embedding_size", width) not in (None, width):
        raise CheckpointError(
            f"config.json: embedding_size is {config['embedding_size']!r:.80}, the weights have {width}",
            fix=ANOTHER,
        )
    hidden = linear(shapes, projection, "up", inputs=width).out_features if projected else width
    eps = number(config, family.eps_key, 1e-12) if family.eps_key else 1e-12
    token_types = f"{base}embeddings.token_type_embeddings"
    positions, longest = _positions(config, shapes, family, base, width, position_offset)
    if f"{token_types}.weight" in shapes:
        shape_of(shapes, f"{token_types}.weight", None, width)
    bias = family.position_bias and f"{base}{family.position_bias}"
    if bias is not None:
        shape_of(shapes, f"{bias}.weight", None, integer(config, family.heads_key))
    found = Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder",
        base=base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=longest,
        blocks=tuple(
            replace(_block(config, shapes, family, blocks_name, index, hidden, eps), repeats=repeats)
            for index in range(count)
        ),
        embedding=f"{base}{EMBEDDING}",
        position_embedding=positions,
        token_type_embedding=token_types if f"{token_types}.weight" in shapes else None,
        embedding_norm=norm(shapes, f"{base}embeddings.LayerNorm", "layer", eps, width),
        embedding_projection=projection if projected else None,
        position_biases=() if bias is None else (bias,),
        position_offset=position_offset,
    )
    return with_head(found, config, shapes, family.head)


def _positions(
    config: Config, shapes: Shapes, family: BertLike, base: str, width: int, offset: int
) -> tuple[str | None, int]:
    """The position table, if there is one, and how many tokens a text may have."""
    if not family.positions:
        return None, integer(config, "max_position_embeddings", 512)
    table = f"{base}embeddings.position_embeddings"
    rows = shape_of(shapes, f"{table}.weight", None, width)[0]
    if rows <= offset:
        raise CheckpointError(f"tensor {table + '.weight'!r} has {rows} rows, positions begin at {offset}")
    return table, rows - offset


def first_position(config: Config, pad: int) -> int:
    """Of families that count positions from the row after the padding token's, by default ``pad``."""
    pad = config.get("pad_token_id", pad)
    if type(pad) is not int or pad < 0:
        raise CheckpointError(f"config.json: pad_token_id must be a token id, not {pad!r}")
    return pad + 1


def _check_plain_encoder(config: Config) -> None:
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise CheckpointError(
                f"config.json sets {key}: this is not a plain encoder", fix="give an encoder"
            )
    kind = text(config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise CheckpointError(
            f"config.json: position_embedding_type {kind!r} is not supported, only 'absolute'"
        )


def _block(
    config: Config, shapes: Shapes, family: BertLike, blocks_name: str, index: int, hidden: int, eps: float
) -> BlockAnatomy:
    prefix = f"{blocks_name}.{index}"
    names = family.block
    up = linear(shapes, f"{prefix}.{names.up}", "up", inputs=hidden)
    down = linear(shapes, f"{prefix}.{names.down}", "down", inputs=up.out_features, outputs=hidden)
    head_dim = hidden // integer(config, family.heads_key) or hidden
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=_attention(shapes, prefix, names, hidden, head_dim),
        feed_forward=Mlp(None, up, down, text(config, family.activation_key, "gelu")),
        norm1=norm(shapes, f"{prefix}.{names.norm1}", "layer", eps, hidden),
        norm2=norm(shapes, f"{prefix}.{names.norm2}", "layer", eps, hidden),
        order="post",
    )


def _attention(shapes: Shapes, prefix: str, names: BlockNames, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{prefix}.{names.q}", "q", inputs=hidden)
    width = q.out_features
    k = linear(shapes, f"{prefix}.{names.k}", "k", inputs=hidden, outputs=width)
    v = linear(shapes, f"{prefix}.{names.v}", "v", inputs=hidden, outputs=width)
    heads = heads_in(q, head_dim)
    o = linear(shapes, f"{prefix}.{names.o}", "o", inputs=width, outputs=hidden)
    return Attention(q, k, v, o, heads, heads, head_dim)
