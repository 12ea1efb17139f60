"""Decoders in Llama's form: pre-norm RMSNorm, rotary grouped-query attention, gated MLP, one head.

Llama (SmolLM2, …), Mistral, Qwen2 and Qwen3 differ in data only: per-head norms of q and k, and which
layers see a sliding window. Biases are found in the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat

from ...errors import CheckpointError
from ..anatomy import Anatomy, Attention, BlockAnatomy, Mlp, Shapes
from ._rope import rope
from ._tensors import Config, check_blocks, heads_in, integer, linear, norm, number, shape_of, text

BASE = "model."
BLOCKS = "model.layers"
HEAD = "lm_head"
PARTS = frozenset(
    {f"self_attn.{name}_proj" for name in "qkvo"}
    | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"}
)
QK_NORMS = frozenset({"self_attn.q_norm", "self_attn.k_norm"})


def llama_like(
    config: Config,
    shapes: Shapes,
    *,
    windows: Sequence[int | None] = (),
    qk_norm: bool = False,
    max_positions: int,
) -> Anatomy:
    """The anatomy of a decoder.

    Args:
        windows: sliding window of each layer; shorter sequences are continued with None.
        qk_norm: q and k are normalized per head.
        max_positions: the family's context length where the config is silent.
    """
    _check_architecture(config)
    count = integer(config, "num_hidden_layers")
    check_blocks(shapes, BLOCKS, count, PARTS | QK_NORMS if qk_norm else PARTS)
    vocabulary, hidden = shape_of(shapes, f"{BASE}embed_tokens.weight", None, None)
    head_dim = _head_dim(config, shapes, hidden, qk_norm)
    eps = number(config, "rms_norm_eps", 1e-6)
    blocks = tuple(
        _block(config, shapes, index, hidden, head_dim, eps, qk_norm, window)
        for index, window in zip(range(count), chain(windows, repeat(None)), strict=False)
    )
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base=BASE,
        blocks_name=BLOCKS,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=integer(config, "max_position_embeddings", max_positions),
        blocks=blocks,
        embedding=f"{BASE}embed_tokens",
        rope=rope(config, head_dim),
        final_norm=norm(shapes, f"{BASE}norm", "rms", eps, hidden),
        head=HEAD,
        tied=_tied(config, shapes, vocabulary, hidden),
    )


def _check_architecture(config: Config) -> None:
    names = config.get("architectures") or []
    if names and not any(str(name).endswith("ForCausalLM") for name in names):
        raise CheckpointError(
            f"config.json names the architecture {', '.join(map(str, names))}, not a causal language model",
            why="its head is not a vocabulary head, and edgepress would leave it out",
            fix="give the …ForCausalLM checkpoint of this model",
        )


def _head_dim(config: Config, shapes: Shapes, hidden: int, qk_norm: bool) -> int:
    if qk_norm:
        return shape_of(shapes, f"{BLOCKS}.0.self_attn.q_norm.weight", None)[0]
    return integer(config, "head_dim", hidden // integer(config, "num_attention_heads") or None)


def _tied(config: Config, shapes: Shapes, vocabulary: int, hidden: int) -> bool:
    # A checkpoint may store the shared matrix twice: the flag decides, then what is stored.
    flag = config.get("tie_word_embeddings")
    if flag is False or (not flag and f"{HEAD}.weight" in shapes):
        shape_of(shapes, f"{HEAD}.weight", vocabulary, hidden)
        return False
    return True


def _block(
    config: Config,
    shapes: Shapes,
    index: int,
    hidden: int,
    head_dim: int,
    eps: float,
    qk_norm: bool,
    window: int | None,
) -> BlockAnatomy:
    prefix = f"{BLOCKS}.{index}"
    attention = _attention(shapes, f"{prefix}.self_attn", hidden, head_dim)
    if qk_norm:
        attention = replace(
            attention,
            q_norm=norm(shapes, f"{prefix}.self_attn.q_norm", "rms", eps, head_dim),
            k_norm=norm(shapes, f"{prefix}.self_attn.k_norm", "rms", eps, head_dim),
        )
    up = linear(shapes, f"{prefix}.mlp.up_proj", "up", inputs=hidden)
    width = up.out_features
    gate = linear(shapes, f"{prefix}.mlp.gate_proj", "gate", inputs=hidden, outputs=width)
    down = linear(shapes, f"{prefix}.mlp.down_proj", "down", inputs=width, outputs=hidden)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        attention=replace(attention, sliding_window=window),
        mlp=Mlp(gate, up, down, text(config, "hidden_act", "silu")),
        norm1=norm(shapes, f"{prefix}.input_layernorm", "rms", eps, hidden),
        norm2=norm(shapes, f"{prefix}.post_attention_layernorm", "rms", eps, hidden),
        order="pre",
    )


def _attention(shapes: Shapes, module: str, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=k.out_features)
    heads, kv_heads = heads_in(q, head_dim), heads_in(k, head_dim)
    if heads % kv_heads:
        raise CheckpointError(
            f"tensor {k.name + '.weight'!r} makes {kv_heads} key heads for {heads} query heads: no even share"
        )
    o = linear(shapes, f"{module}.o_proj", "o", inputs=q.out_features, outputs=hidden)
    return Attention(q, k, v, o, heads, kv_heads, head_dim)
