"""Decoders in Llama's form: norms before attention and MLP, grouped-query attention, gated MLP, one head.

Llama (SmolLM2, …), Mistral, Qwen, Gemma, Phi-3 and StableLM differ in data only: the kind of the norms and
where further ones stand, whether q, k and v, gate and up are one matrix, and which layers see a sliding
window or turn q and k by which rope. Biases are found in the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from math import sqrt
from typing import Literal

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Experts, Mlp, Norm, Role, Rope
from ._config import longest, rope
from ._experts import ExpertNames
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

BASE = "model."
BLOCKS = "model.layers"
HEAD = "lm_head"
APART = frozenset({*(f"self_attn.{name}_proj" for name in "qkv"), "mlp.gate_proj", "mlp.up_proj"})
FUSED = frozenset({"self_attn.qkv_proj", "mlp.gate_up_proj"})
PARTS = frozenset({"self_attn.o_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"})
QK_NORMS = frozenset({"self_attn.q_norm", "self_attn.k_norm"})
INNER_NORMS = frozenset({"self_attn.attn_sub_norm", "mlp.ffn_sub_norm"})
FEED_FORWARD_NORMS = frozenset({"pre_feedforward_layernorm", "post_feedforward_layernorm"})


@dataclass(frozen=True)
class LlamaLike:
    """What tells one family from another.

    Attributes:
        max_positions: the context length where the config is silent.
        norm_kind, eps_key: of every norm; the key is that of the config.
        fused: q, k and v are one matrix, and gate and up are one.
        parallel: attention and MLP read the one norm of the block and stand side by side.
        neighbours_turn: the rope turns neighbouring channels together.
        qk_norm: q and k are normalized per head.
        norm_offset: added to the stored weights of every norm.
        sandwiched: attention and MLP are normalized before and after.
        inner_norms: what o and down read is normalized.
        scaled_embedding: embeddings are multiplied by the root of the hidden size.
        activation: function of the MLP where the config is silent.
        eps: of the norms where the config is silent.
        experts: how experts are stored in the blocks that have them; None for families without.
    """

    max_positions: int
    norm_kind: Literal["rms", "layer"] = "rms"
    eps_key: str = "rms_norm_eps"
    fused: bool = False
    parallel: bool = False
    neighbours_turn: bool = False
    qk_norm: bool = False
    norm_offset: float = 0.0
    sandwiched: bool = False
    inner_norms: bool = False
    scaled_embedding: bool = False
    activation_key: str = "hidden_act"
    activation: str = "silu"
    eps: float = 1e-6
    experts: ExpertNames | None = None

    def parts(self, shapes: Shapes) -> frozenset[str]:
        """Every module that a block has."""
        if self.experts is not None:
            return replace(self, experts=None).parts(shapes) | self.experts.parts(shapes, BLOCKS)
        norms = QK_NORMS if self.qk_norm else frozenset[str]()
        norms |= INNER_NORMS if self.inner_norms else frozenset()
        norms |= FEED_FORWARD_NORMS if self.sandwiched else frozenset()
        parts = PARTS - {"post_attention_layernorm"} if self.parallel else PARTS
        return parts | norms | (FUSED if self.fused else APART)


def llama_like(
    config: Config,
    shapes: Shapes,
    family: LlamaLike,
    *,
    windows: Sequence[int | None] = (),
    ropes: Sequence[Rope | None] = (),
) -> Anatomy:
    """The anatomy of a decoder of ``family``.

    ``windows`` is the sliding window of each layer; shorter sequences are continued with None. ``ropes`` is
    the rope of each layer, by default the one that the config describes for all.
    """
    check_architecture(config)
    count = integer(config, "num_hidden_layers")
    check_blocks(shapes, BLOCKS, count, family.parts(shapes))
    vocabulary, hidden = shape_of(shapes, f"{BASE}embed_tokens.weight", None, None)
    head_dim = _head_dim(config, shapes, hidden, family.qk_norm)
    eps = number(config, family.eps_key, family.eps)
    blocks = tuple(
        _block(config, shapes, family, index, (hidden, head_dim), eps, window)
        for index, window in zip(range(count), chain(windows, repeat(None)), strict=False)
    )
    ropes = ropes or [replace(rope(config, head_dim), interleaved=family.neighbours_turn)] * count
    blocks = tuple(
        replace(block, attention=replace(block.attention, rope=turned))
        for block, turned in zip(blocks, ropes, strict=True)
    )
    positions = integer(config, "max_position_embeddings", family.max_positions)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base=BASE,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=min([positions, *map(longest, filter(None, ropes))]),
        blocks=blocks,
        embedding=f"{BASE}embed_tokens",
        embedding_scale=sqrt(hidden) if family.scaled_embedding else 1.0,
        final_norm=norm(shapes, f"{BASE}norm", family.norm_kind, eps, hidden, family.norm_offset),
        head=HEAD,
        tied=is_tied(config, shapes, HEAD, vocabulary, hidden),
    )


def _head_dim(config: Config, shapes: Shapes, hidden: int, qk_norm: bool) -> int:
    if qk_norm:
        return shape_of(shapes, f"{BLOCKS}.0.self_attn.q_norm.weight", None)[0]
    return integer(config, "head_dim", hidden // integer(config, "num_attention_heads") or None)


def _block(
    config: Config,
    shapes: Shapes,
    family: LlamaLike,
    index: int,
    sizes: tuple[int, int],
    eps: float,
    window: int | None,
) -> BlockAnatomy:
    prefix, (hidden, head_dim) = f"{BLOCKS}.{index}", sizes

    def made(name: str, size: int = hidden) -> Norm:
        return norm(shapes, f"{prefix}.{name}", family.norm_kind, eps, size, family.norm_offset)

    if family.fused:
        attention = _fused_attention(shapes, f"{prefix}.self_attn", hidden, head_dim)
    else:
        attention = _attention(shapes, f"{prefix}.self_attn", hidden, head_dim)
    inner = made("self_attn.attn_sub_norm", attention.o.in_features) if family.inner_norms else None
    attention = replace(
        attention,
        sliding_window=window,
        inner_norm=inner,
        q_norm=made("self_attn.q_norm", head_dim) if family.qk_norm else None,
        k_norm=made("self_attn.k_norm", head_dim) if family.qk_norm else None,
    )
    mlp, experts = _mlp(config, shapes, family, prefix, hidden)
    inner = made("mlp.ffn_sub_norm", mlp.down.in_features) if family.inner_norms else None
    activation = text(config, family.activation_key, family.activation)
    before = made("input_layernorm")
    after = before if family.parallel else made("post_attention_layernorm")
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        attention=attention,
        mlp=replace(mlp, activation=activation, inner_norm=inner),
        norm1=before,
        norm2=made("pre_feedforward_layernorm") if family.sandwiched else after,
        order="parallel" if family.parallel else "pre",
        attention_norm=after if family.sandwiched else None,
        mlp_norm=made("post_feedforward_layernorm") if family.sandwiched else None,
        experts=experts,
    )


def _mlp(
    config: Config, shapes: Shapes, family: LlamaLike, prefix: str, hidden: int
) -> tuple[Mlp, Experts | None]:
    if family.experts is not None and family.experts.present(shapes, prefix):
        return family.experts.of(config, shapes, prefix, hidden)
    if family.fused:
        down = linear(shapes, f"{prefix}.mlp.down_proj", "down", outputs=hidden)
        width = down.in_features
        sizes: dict[Role, int] = {"gate": width, "up": width}
        both, (gate, up) = fused(shapes, f"{prefix}.mlp.gate_up_proj", "gate_up", sizes, hidden)
        return Mlp(gate, up, down, "", gate_up=both), None
    up = linear(shapes, f"{prefix}.mlp.up_proj", "up", inputs=hidden)
    width = up.out_features
    gate = linear(shapes, f"{prefix}.mlp.gate_proj", "gate", inputs=hidden, outputs=width)
    down = linear(shapes, f"{prefix}.mlp.down_proj", "down", inputs=width, outputs=hidden)
    return Mlp(gate, up, down, ""), None


def _attention(shapes: Shapes, module: str, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=k.out_features)
    heads, kv_heads = head_counts(q, k, head_dim)
    o = linear(shapes, f"{module}.o_proj", "o", inputs=q.out_features, outputs=hidden)
    return Attention(q, k, v, o, heads, kv_heads, head_dim)


def _fused_attention(shapes: Shapes, module: str, hidden: int, head_dim: int) -> Attention:
    o = linear(shapes, f"{module}.o_proj", "o", outputs=hidden)
    rows, _ = shape_of(shapes, f"{module}.qkv_proj.weight", None, hidden)
    keys = (rows - o.in_features) // 2
    sizes: dict[Role, int] = {"q": o.in_features, "k": keys, "v": keys}
    qkv, (q, k, v) = fused(shapes, f"{module}.qkv_proj", "qkv", sizes, hidden)
    return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim, qkv=qkv)
