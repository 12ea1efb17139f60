"""Decoders in Llama's form: norms before attention and MLP, grouped-query attention, gated MLP, one head.

Llama (SmolLM2, …), Mistral, Qwen, Gemma, Phi-3, StableLM, Cohere, Nemotron, GLM-4 and OLMo 2 differ in data
only: the kind of the norms and where they stand, whether q, k and v, gate and up are one matrix, and which
layers see a sliding window or turn q and k by which rope. Biases are found in the tensors.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain, repeat
from math import sqrt
from typing import Literal

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Experts, Mlp, Norm, Role, Rope
from ._config import longest, rope
from ._experts import ExpertNames
from ._latent_attention import PARTS, latent_attention
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
LAYERS, EMBEDDING = "layers", "embed_tokens"
HEAD = "lm_head"
SINKS = "self_attn.sinks"
QK_NORMS = frozenset({"self_attn.q_norm", "self_attn.k_norm"})
INNER_NORMS = frozenset({"self_attn.attn_sub_norm", "mlp.ffn_sub_norm"})


@dataclass(frozen=True)
class NormNames:
    """The norms of a block by their places in a ``BlockAnatomy``; None where there is none."""

    norm1: str = "input_layernorm"
    norm2: str = "post_attention_layernorm"
    attention_norm: str | None = None
    mlp_norm: str | None = None


ONE = NormNames(norm2="input_layernorm")
AROUND = NormNames(
    norm2="pre_feedforward_layernorm",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
BEHIND = NormNames("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class LlamaLike:
    """What tells one family from another.

    Attributes:
        max_positions: the context length where the config is silent.
        norm_kind, norm_bias, eps_key: of every norm; a bias is a LayerNorm's, the key is that of the config.
        norms, order: of a block.
        fused_attention: q, k and v are one matrix.
        fused_mlp: gate and up are one.
        gated: the MLP has a gate.
        neighbours_turn: the rope turns neighbouring channels together.
        qk_norm: q and k are normalized per head, or ``whole``, over all heads.
        norm_offset: added to the stored weights of every norm.
        inner_norms: what o and down read is normalized.
        scaled_embedding: embeddings are multiplied by the root of the hidden size.
        activation: function of the MLP where the config is silent.
        eps: of the norms where the config is silent.
        experts: how experts are stored in the blocks that have them; None for families without.
        sinks: each head of attention has one.
        latent: attention is that of :mod:`._latent_attention`.
    """

    max_positions: int
    norm_kind: Literal["rms", "layer"] = "rms"
    eps_key: str = "rms_norm_eps"
    norm_bias: bool = True
    norms: NormNames = NormNames()
    order: Literal["pre", "parallel", "behind"] = "pre"
    fused_attention: bool = False
    fused_mlp: bool = False
    gated: bool = True
    neighbours_turn: bool = False
    qk_norm: Literal["head", "whole"] | None = None
    norm_offset: float = 0.0
    inner_norms: bool = False
    scaled_embedding: bool = False
    activation_key: str = "hidden_act"
    activation: str = "silu"
    eps: float = 1e-6
    experts: ExpertNames | None = None
    sinks: bool = False
    latent: bool = False

    def parts(self, shapes: Shapes, blocks: str) -> frozenset[str]:
        """Every module that a block below ``blocks`` has."""
        if self.experts is not None:
            return replace(self, experts=None).parts(shapes, blocks) | self.experts.parts(shapes, blocks)
        attention = ("qkv_proj",) if self.fused_attention else ("q_proj", "k_proj", "v_proj")
        gate = ("gate_proj",) if self.gated else ()
        mlp = ("gate_up_proj",) if self.fused_mlp else (*gate, "up_proj")
        found = {f"self_attn.{name}" for name in (*attention, "o_proj")}
        found = set(PARTS) if self.latent else found
        found |= {f"mlp.{name}" for name in (*mlp, "down_proj")}
        found |= QK_NORMS if self.qk_norm else set()
        found |= INNER_NORMS if self.inner_norms else set()
        return frozenset(found | set(astuple(self.norms)) - {None})

    def tensors(self) -> frozenset[str]:
        """Every tensor that a block has beside those of modules."""
        form = None if self.experts is None else self.experts.router_form
        found = {SINKS} if self.sinks else set()
        if self.experts is not None and form is not None:
            found.add(f"{self.experts.module}.{self.experts.router}.{form.correction}")
        return frozenset(found)


def base_of(shapes: Shapes) -> str:
    """What stored names begin with; of a model that was saved without its head nothing."""
    return "" if f"{EMBEDDING}.weight" in shapes else BASE


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
    base = base_of(shapes)
    stack = f"{base}{LAYERS}"
    check_blocks(shapes, stack, count, family.parts(shapes, stack), family.tensors())
    vocabulary, hidden = shape_of(shapes, f"{base}{EMBEDDING}.weight", None, None)
    head_dim = _head_dim(config, shapes, stack, hidden, family.qk_norm == "head")
    eps = number(config, family.eps_key, family.eps)
    blocks = tuple(
        _block(config, shapes, family, stack, index, (hidden, head_dim), eps, window)
        for index, window in zip(range(count), chain(windows, repeat(None)), strict=False)
    )
    ropes = ropes or [replace(rope(config, head_dim), interleaved=family.neighbours_turn)] * count
    blocks = tuple(
        replace(block, mixer=replace(block.attention, rope=turned))
        for block, turned in zip(blocks, ropes, strict=True)
    )
    positions = integer(config, "max_position_embeddings", family.max_positions)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base=base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=min([positions, *map(longest, filter(None, ropes))]),
        blocks=blocks,
        embedding=f"{base}{EMBEDDING}",
        embedding_scale=sqrt(hidden) if family.scaled_embedding else 1.0,
        final_norm=_norm(shapes, family, f"{base}norm", eps, hidden),
        head=HEAD,
        tied=is_tied(config, shapes, HEAD, vocabulary, hidden),
        renamed=() if base else ((HEAD, HEAD), ("", BASE)),
    )


def _norm(shapes: Shapes, family: LlamaLike, module: str, eps: float, size: int) -> Norm:
    return norm(shapes, module, family.norm_kind, eps, size, family.norm_offset, bias=family.norm_bias)


def _head_dim(config: Config, shapes: Shapes, stack: str, hidden: int, per_head: bool) -> int:
    if per_head:
        return shape_of(shapes, f"{stack}.0.self_attn.q_norm.weight", None)[0]
    return integer(config, "head_dim", hidden // integer(config, "num_attention_heads") or None)


def _block(
    config: Config,
    shapes: Shapes,
    family: LlamaLike,
    stack: str,
    index: int,
    sizes: tuple[int, int],
    eps: float,
    window: int | None,
) -> BlockAnatomy:
    prefix, (hidden, head_dim) = f"{stack}.{index}", sizes

    def made(name: str, size: int = hidden) -> Norm:
        return _norm(shapes, family, f"{prefix}.{name}", eps, size)

    module = f"{prefix}.self_attn"
    if family.latent:
        attention = latent_attention(config, shapes, module, hidden)
    else:
        attention = _attention(shapes, family, module, hidden, head_dim)
    inner = made("self_attn.attn_sub_norm", attention.o.in_features) if family.inner_norms else None
    attention = replace(attention, sliding_window=window, inner_norm=inner)
    if family.qk_norm is not None:
        whole = family.qk_norm == "whole"
        attention = replace(
            attention,
            normed_over_heads=whole,
            q_norm=made("self_attn.q_norm", attention.q.out_features if whole else head_dim),
            k_norm=made("self_attn.k_norm", attention.k.out_features if whole else head_dim),
        )
    if family.sinks:
        shape_of(shapes, f"{prefix}.{SINKS}", attention.heads)
        attention = replace(attention, sinks=f"{prefix}.{SINKS}")
    mlp, experts = _mlp(config, shapes, family, prefix, hidden)
    inner = made("mlp.ffn_sub_norm", mlp.down.in_features) if family.inner_norms else None
    activation = text(config, family.activation_key, family.activation)
    if experts is not None and experts.shared is not None:
        experts = replace(experts, shared=replace(experts.shared, activation=activation))
    names = family.norms
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=attention,
        feed_forward=replace(mlp, activation=activation, inner_norm=inner),
        norm1=made(names.norm1),
        norm2=made(names.norm2),
        order=family.order,
        attention_norm=None if names.attention_norm is None else made(names.attention_norm),
        mlp_norm=None if names.mlp_norm is None else made(names.mlp_norm),
        experts=experts,
    )


def _mlp(
    config: Config, shapes: Shapes, family: LlamaLike, prefix: str, hidden: int
) -> tuple[Mlp, Experts | None]:
    if family.experts is not None and family.experts.present(shapes, prefix):
        return family.experts.of(config, shapes, prefix, hidden)
    if family.fused_mlp:
        down = linear(shapes, f"{prefix}.mlp.down_proj", "down", outputs=hidden)
        width = down.in_features
        sizes: dict[Role, int] = {"gate": width, "up": width}
        both, (gate, up) = fused(shapes, f"{prefix}.mlp.gate_up_proj", "gate_up", sizes, hidden)
        return Mlp(gate, up, down, "", gate_up=both), None
    up = linear(shapes, f"{prefix}.mlp.up_proj", "up", inputs=hidden)
    width = up.out_features
    down = linear(shapes, f"{prefix}.mlp.down_proj", "down", inputs=width, outputs=hidden)
    if not family.gated:
        return Mlp(None, up, down, ""), None
    return Mlp(
        linear(shapes, f"{prefix}.mlp.gate_proj", "gate", inputs=hidden, outputs=width), up, down, ""
    ), None


def _attention(shapes: Shapes, family: LlamaLike, module: str, hidden: int, head_dim: int) -> Attention:
    o = linear(shapes, f"{module}.o_proj", "o", outputs=hidden)
    if family.fused_attention:
        rows, _ = shape_of(shapes, f"{module}.qkv_proj.weight", None, hidden)
        keys = (rows - o.in_features) // 2
        sizes: dict[Role, int] = {"q": o.in_features, "k": keys, "v": keys}
        qkv, (q, k, v) = fused(shapes, f"{module}.qkv_proj", "qkv", sizes, hidden)
        return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim, qkv=qkv)
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden, outputs=o.in_features)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=k.out_features)
    return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim)
