"""``Anatomy``: where the parts of a model are. Data, derived from the config and the tensor shapes.

A family file answers with one of these; the sweep, the exporter and the plan read nothing else about an
architecture. Sizes come from the shapes of the stored tensors, so that layers of unequal width need no
special case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Shapes = Mapping[str, tuple[int, ...]]
Role = Literal["q", "k", "v", "o", "gate", "up", "down"]


@dataclass(frozen=True)
class Linear:
    """One linear map. ``name`` is the full module name: ``model.layers.0.self_attn.q_proj``."""

    name: str
    role: Role
    out_features: int
    in_features: int
    bias: bool


@dataclass(frozen=True)
class Norm:
    """RMSNorm (``kind="rms"``) or LayerNorm with bias (``kind="layer"``), by full module name."""

    name: str
    kind: Literal["rms", "layer"]
    eps: float


@dataclass(frozen=True)
class Attention:
    """Self-attention: ``heads`` query heads share ``kv_heads`` key/value heads of ``head_dim`` channels."""

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    heads: int
    kv_heads: int
    head_dim: int
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    sliding_window: int | None = None


@dataclass(frozen=True)
class Mlp:
    """``down(act(gate(x)) · up(x))`` when there is a gate, else ``down(act(up(x)))``."""

    gate: Linear | None
    up: Linear
    down: Linear
    activation: str


@dataclass(frozen=True)
class BlockAnatomy:
    """One transformer block.

    ``pre`` order: ``x += attn(norm1(x)); x += mlp(norm2(x))``; ``post`` order (BERT): ``x = norm1(x +
    attn(x)); x = norm2(x + mlp(x))``.
    """

    index: int
    prefix: str
    attention: Attention
    mlp: Mlp
    norm1: Norm
    norm2: Norm
    order: Literal["pre", "post"]

    def linears(self) -> Iterator[Linear]:
        """The block's linears in the order of the forward pass."""
        attention, mlp = self.attention, self.mlp
        yield from (attention.q, attention.k, attention.v, attention.o)
        if mlp.gate is not None:
            yield mlp.gate
        yield from (mlp.up, mlp.down)

    def inputs(self) -> tuple[tuple[Linear, ...], ...]:
        """Linears that read the same activations, in the order of the forward pass: q k v · o · gate up ·
        down.
        """
        attention, mlp = self.attention, self.mlp
        first = (mlp.up,) if mlp.gate is None else (mlp.gate, mlp.up)
        return (attention.q, attention.k, attention.v), (attention.o,), first, (mlp.down,)


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding over the first ``dim`` channels of a head; ``scaling`` as in the config, or
    empty.
    """

    theta: float
    dim: int
    scaling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Anatomy:
    """A whole model.

    Attributes:
        kind: ``decoder`` (causal, with a head) or ``encoder``.
        base: module prefix of the inner model (``model.`` or ``bert.`` or empty).
        blocks_name: module that holds the blocks: ``model.layers``.
        embedding: token embedding module; ``position_embedding``/``token_type_embedding``/``embedding_norm``
            or None.
        position_offset: id of the first position (RoBERTa counts from ``pad_token_id + 1``).
        final_norm, head: None for encoders; ``tied`` when the head is the embedding.
    """

    model_type: str
    kind: Literal["decoder", "encoder"]
    base: str
    blocks_name: str
    hidden_size: int
    vocab_size: int
    max_positions: int
    blocks: tuple[BlockAnatomy, ...]
    embedding: str
    position_embedding: str | None = None
    token_type_embedding: str | None = None
    embedding_norm: Norm | None = None
    position_offset: int = 0
    rope: Rope | None = None
    final_norm: Norm | None = None
    head: str | None = None
    tied: bool = False

    def linears(self) -> Iterator[Linear]:
        """Every linear of every block."""
        for block in self.blocks:
            yield from block.linears()
