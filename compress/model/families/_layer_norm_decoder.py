"""Decoders with LayerNorm and an MLP of two linears: GPT-2, GPT-NeoX, GPT-J, Falcon, OPT, Phi, BLOOM, MPT.

They differ in names, in where positions come from, in whether q, k and v are one matrix, and in whether
attention and MLP follow one another or stand side by side: a family is a table. Biases are found in the
tensors.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm, Role, Rope
from ._tensors import (
    Config,
    check_architecture,
    check_blocks,
    fused,
    head_counts,
    integer,
    is_tied,
    linear,
    norm,
    number,
    shape_of,
    text,
)

HEAD = "lm_head"
TORCH_EPS = 1e-5


@dataclass(frozen=True)
class LayerNormDecoder:
    """Names and config keys of a family. Modules of a block are relative to it, the others to ``base``.

    Attributes:
        qkv: the modules of q, k and v, or the one that is all three; ``interleaved`` when it takes them
            key/value head by key/value head.
        norm2: None where attention and MLP read one norm.
        position_embedding: table of learned positions, or None; its first ``position_offset`` rows are not
            positions.
        activation_key, activation: the function, where the config has no key for it or is silent.
        eps_key: config key of the norms' epsilon, or None for torch's default.
        biased_by_distance: by :func:`linear_biases`.
        embedding_norm: of what enters the first block, or None.
        buffers: tensors of a block that older checkpoints carry and nobody reads.
        head: stored name of the head.
    """

    base: str
    blocks: str
    embedding: str
    final_norm: str
    qkv: tuple[str, ...]
    o: str
    norm1: str
    norm2: str | None
    up: str
    down: str
    order: Literal["pre", "parallel"]
    activation_key: str | None
    activation: str
    eps_key: str | None = None
    interleaved: bool = False
    norm_bias: bool = True
    biased_by_distance: bool = False
    embedding_norm: str | None = None
    position_embedding: str | None = None
    position_offset: int = 0
    count_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    positions_key: str = "max_position_embeddings"
    buffers: frozenset[str] = frozenset()
    head: str = HEAD
    max_positions: int = 2048

    def parts(self) -> frozenset[str]:
        """Every module that a block has."""
        names = (*self.qkv, self.o, self.norm1, self.norm2, self.up, self.down)
        return frozenset(name for name in names if name is not None)


def layer_norm_decoder(
    config: Config,
    shapes: Shapes,
    family: LayerNormDecoder,
    *,
    rope: Rope | None = None,
    scale: float | None = None,
) -> Anatomy:
    """The anatomy of a decoder of ``family``, whose attention has the ``rope`` and the ``scale``."""
    check_architecture(config)
    count = integer(config, family.count_key)
    blocks_name = f"{family.base}{family.blocks}"
    check_blocks(shapes, blocks_name, count, family.parts(), family.buffers)
    embedding = f"{family.base}{family.embedding}"
    vocabulary, hidden = shape_of(shapes, f"{embedding}.weight", None, None)
    eps = number(config, family.eps_key, TORCH_EPS) if family.eps_key else TORCH_EPS

    def outer(module: str) -> Norm:
        return norm(shapes, f"{family.base}{module}", "layer", eps, hidden, bias=family.norm_bias)

    blocks = (_block(config, shapes, family, index, hidden, eps) for index in range(count))
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base=family.base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=_positions(config, shapes, family, hidden),
        blocks=tuple(_placed(block, family, rope, scale) for block in blocks),
        embedding=embedding,
        position_embedding=family.position_embedding and f"{family.base}{family.position_embedding}",
        position_offset=family.position_offset,
        embedding_norm=None if family.embedding_norm is None else outer(family.embedding_norm),
        final_norm=outer(family.final_norm),
        head=family.head,
        tied=is_tied(config, shapes, family.head, vocabulary, hidden),
    )


def _placed(
    block: BlockAnatomy, family: LayerNormDecoder, rope: Rope | None, scale: float | None
) -> BlockAnatomy:
    slopes = linear_biases(block.attention.heads) if family.biased_by_distance else None
    return replace(block, mixer=replace(block.attention, rope=rope, scale=scale, slopes=slopes))


def linear_biases(heads: int) -> tuple[float, ...]:
    """The slope of each head: a geometric sequence down to ``1 / 256`` for the largest power of two that
    ``heads`` has room for, then every other number of the one of twice that length.

    Press et al., Train Short, Test Long: Attention with Linear Biases, 2021, arXiv 2108.12409.
    """
    whole = 1 << (heads.bit_length() - 1)
    between = range(1, 2 * (heads - whole), 2)
    exponents = [step / whole for step in range(1, whole + 1)] + [step / (2 * whole) for step in between]
    return tuple(2.0 ** (-8 * exponent) for exponent in exponents)


def _positions(config: Config, shapes: Shapes, family: LayerNormDecoder, hidden: int) -> int:
    if family.position_embedding is None:
        return integer(config, family.positions_key, family.max_positions)
    table = f"{family.base}{family.position_embedding}.weight"
    rows = shape_of(shapes, table, None, hidden)[0]
    if rows <= family.position_offset:
        raise CheckpointError(
            f"tensor {table!r} has {rows} rows, positions begin at {family.position_offset}"
        )
    return rows - family.position_offset


def _block(
    config: Config,
    shapes: Shapes,
    family: LayerNormDecoder,
    index: int,
    hidden: int,
    eps: float,
) -> BlockAnatomy:
    prefix = f"{family.base}{family.blocks}.{index}"
    up = linear(shapes, f"{prefix}.{family.up}", "up", inputs=hidden)
    down = linear(shapes, f"{prefix}.{family.down}", "down", inputs=up.out_features, outputs=hidden)
    activation = text(config, family.activation_key, family.activation) if family.activation_key else None

    def made(module: str) -> Norm:
        return norm(shapes, f"{prefix}.{module}", "layer", eps, hidden, bias=family.norm_bias)

    first = made(family.norm1)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=_attention(config, shapes, family, prefix, hidden),
        feed_forward=Mlp(None, up, down, activation or family.activation),
        norm1=first,
        norm2=first if family.norm2 is None else made(family.norm2),
        order=family.order,
    )


def _attention(
    config: Config, shapes: Shapes, family: LayerNormDecoder, prefix: str, hidden: int
) -> Attention:
    head_dim = integer(config, "head_dim", hidden // integer(config, family.heads_key) or None)
    if len(family.qkv) == 1:
        return _fused_attention(shapes, family, prefix, hidden, head_dim)
    names = [f"{prefix}.{name}" for name in family.qkv]
    q = linear(shapes, names[0], "q", inputs=hidden)
    k = linear(shapes, names[1], "k", inputs=hidden)
    v = linear(shapes, names[2], "v", inputs=hidden, outputs=k.out_features)
    o = linear(shapes, f"{prefix}.{family.o}", "o", inputs=q.out_features, outputs=hidden)
    return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim)


def _fused_attention(
    shapes: Shapes, family: LayerNormDecoder, prefix: str, hidden: int, head_dim: int
) -> Attention:
    o = linear(shapes, f"{prefix}.{family.o}", "o", outputs=hidden)
    rows, _ = shape_of(shapes, f"{prefix}.{family.qkv[0]}.weight", None, hidden)
    keys = (rows - o.in_features) // 2
    sizes: dict[Role, int] = {"q": o.in_features, "k": keys, "v": keys}
    qkv, (q, k, v) = fused(shapes, f"{prefix}.{family.qkv[0]}", "qkv", sizes, hidden)
    heads = head_counts(q, k, head_dim)
    return Attention(q, k, v, o, *heads, head_dim, qkv=qkv, interleaved=family.interleaved)
