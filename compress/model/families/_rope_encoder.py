"""Encoders whose queries and keys positions turn, with a gated MLP: ModernBERT, EuroBERT, Nomic-BERT, GTE.

They differ in names, in the kind of the norms and where they stand, in what is one matrix, and in which
blocks see a window of the text by which rope: a family is a table. Biases are found in the tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm, Role, Rope
from ._config import rope
from ._encoder_head import HeadNames, with_head
from ._tensors import (
    Config,
    check_blocks,
    fused,
    head_counts,
    integer,
    linear,
    norm,
    number,
    shape_of,
    text,
)

LAYERS = "layers"


@dataclass(frozen=True)
class RopeEncoder:
    """What tells one family from another. Modules of a block are relative to it, the others to the encoder.

    Attributes:
        prefix: the module that a checkpoint with a head keeps the encoder in; without a head there is none.
        token_types: the table of token types, where it is stored.
        embedding_norm, final_norm: of what enters the first block and of what leaves the last, or None.
        norm1: where the first block has none, its attention reads what enters.
        qkv, gate_up: the modules of q, k and v, of gate and up, or the one that is all of them.
        max_positions, theta: where the config is silent.
    """

    prefix: str
    embedding: str
    head: HeadNames
    qkv: tuple[str, ...]
    o: str
    norm1: str
    gate_up: tuple[str, ...]
    down: str
    norm2: str
    norm_kind: Literal["rms", "layer"]
    eps_key: str
    eps: float
    max_positions: int
    theta: float
    order: Literal["pre", "post"] = "pre"
    token_types: str | None = None
    embedding_norm: str | None = None
    final_norm: str | None = None
    activation_key: str = "hidden_act"
    activation: str = "silu"

    def parts(self) -> frozenset[str]:
        """Every module that a block has."""
        return frozenset((*self.qkv, self.o, self.norm1, *self.gate_up, self.down, self.norm2))


def rope_encoder(
    config: Config,
    shapes: Shapes,
    family: RopeEncoder,
    *,
    windows: Sequence[int | None] = (),
    ropes: Sequence[Rope] = (),
) -> Anatomy:
    """The anatomy of an encoder of ``family``.

    ``windows`` says of each block how many tokens to each side of it a token sees, by default all; ``ropes``
    is the rope of each block, by default the one that the config describes for all.
    """
    base = family.prefix if f"{family.prefix}{family.embedding}.weight" in shapes else ""
    count = integer(config, "num_hidden_layers")
    check_blocks(shapes, f"{base}{LAYERS}", count, family.parts())
    vocabulary, hidden = shape_of(shapes, f"{base}{family.embedding}.weight", None, None)
    head_dim = integer(config, "head_dim", hidden // integer(config, "num_attention_heads") or None)
    ropes = ropes or [rope({"rope_theta": family.theta, **config}, head_dim)] * count

    def outer(name: str | None) -> Norm | None:
        return None if name is None else _norm(config, shapes, family, f"{base}{name}", hidden)

    blocks = (
        _block(config, shapes, family, f"{base}{LAYERS}", index, (hidden, head_dim)) for index in range(count)
    )
    found = Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder",
        base=base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=integer(config, "max_position_embeddings", family.max_positions),
        blocks=tuple(
            replace(block, mixer=replace(block.attention, rope=turned, sliding_window=window))
            for block, turned, window in zip(blocks, ropes, windows or [None] * count, strict=True)
        ),
        embedding=f"{base}{family.embedding}",
        token_type_embedding=_token_types(shapes, family, base, hidden),
        embedding_norm=outer(family.embedding_norm),
        final_norm=outer(family.final_norm),
    )
    return with_head(found, config, shapes, family.head)


def _token_types(shapes: Shapes, family: RopeEncoder, base: str, hidden: int) -> str | None:
    table = f"{base}{family.token_types}"
    if family.token_types is None or f"{table}.weight" not in shapes:
        return None
    shape_of(shapes, f"{table}.weight", None, hidden)
    return table


def pooling_of(config: Config, default: str) -> Literal["first", "mean", "late"]:
    """How a text's states become what its classifier reads, as ``classifier_pooling`` says."""
    named = text(config, "classifier_pooling", default)
    known: dict[str, Literal["first", "mean", "late"]] = {
        "cls": "first",
        "bos": "first",
        "mean": "mean",
        "late": "late",
    }
    if named not in known:
        raise CheckpointError(
            f"config.json: unknown classifier_pooling {named!r}", fix=f"known: {', '.join(known)}"
        )
    return known[named]


def _norm(config: Config, shapes: Shapes, family: RopeEncoder, module: str, hidden: int) -> Norm:
    eps, bias = number(config, family.eps_key, family.eps), f"{module}.bias" in shapes
    return norm(shapes, module, family.norm_kind, eps, hidden, bias=bias)


def _block(
    config: Config, shapes: Shapes, family: RopeEncoder, blocks: str, index: int, sizes: tuple[int, int]
) -> BlockAnatomy:
    prefix, (hidden, head_dim) = f"{blocks}.{index}", sizes
    activation = text(config, family.activation_key, family.activation)
    second = _norm(config, shapes, family, f"{prefix}.{family.norm2}", hidden)
    late = index == 0 and f"{prefix}.{family.norm1}.weight" not in shapes
    first = second if late else _norm(config, shapes, family, f"{prefix}.{family.norm1}", hidden)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=_attention(shapes, family, prefix, hidden, head_dim),
        feed_forward=replace(_mlp(shapes, family, prefix, hidden), activation=activation),
        norm1=first,
        norm2=second,
        order="late" if late else family.order,
    )


def _attention(shapes: Shapes, family: RopeEncoder, prefix: str, hidden: int, head_dim: int) -> Attention:
    o = linear(shapes, f"{prefix}.{family.o}", "o", outputs=hidden)
    width = o.in_features
    if len(family.qkv) == 1:
        sizes: dict[Role, int] = {"q": width, "k": width, "v": width}
        qkv, (q, k, v) = fused(shapes, f"{prefix}.{family.qkv[0]}", "qkv", sizes, hidden)
        return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim, qkv=qkv)
    names = [f"{prefix}.{name}" for name in family.qkv]
    q = linear(shapes, names[0], "q", inputs=hidden, outputs=width)
    k = linear(shapes, names[1], "k", inputs=hidden)
    v = linear(shapes, names[2], "v", inputs=hidden, outputs=k.out_features)
    return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim)


def _mlp(shapes: Shapes, family: RopeEncoder, prefix: str, hidden: int) -> Mlp:
    down = linear(shapes, f"{prefix}.{family.down}", "down", outputs=hidden)
    width, names = down.in_features, [f"{prefix}.{name}" for name in family.gate_up]
    if len(names) == 1:
        sizes: dict[Role, int] = {"gate": width, "up": width}
        both, (gate, up) = fused(shapes, names[0], "gate_up", sizes, hidden)
        return Mlp(gate, up, down, "", gate_up=both)
    gate = linear(shapes, names[0], "gate", inputs=hidden, outputs=width)
    return Mlp(gate, linear(shapes, names[1], "up", inputs=hidden, outputs=width), down, "")
