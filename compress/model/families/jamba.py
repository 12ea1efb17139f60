"""Jamba: blocks of Mamba with norms of step, B and C, every so many of attention without positions; each with
a gated MLP, or in every so many a mixture of experts.

Lieber et al., Jamba: A Hybrid Transformer-Mamba Language Model, 2024, arXiv 2403.19887.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Experts, Mlp
from ..block_parts.mixer_anatomy import StateSpace
from ._config import SizeKeys, head_size
from ._experts import ExpertNames
from ._state_space import MODULES, TENSORS, StateSpaceKeys, state_space
from ._tensors import (
    Config,
    check_architecture,
    check_blocks,
    head_counts,
    integer,
    is_tied,
    linear,
    norm,
    number,
    shape_of,
    text,
)

SIZES = SizeKeys(experts=("num_experts",))
BLOCKS, HEAD = "model.layers", "lm_head"
_NORMS = ("dt_layernorm", "b_layernorm", "c_layernorm")
_KEYS = StateSpaceKeys("mamba_d_state", "mamba_d_conv", "mamba_dt_rank", _NORMS)
EXPERTS = ExpertNames(module="feed_forward", router="router", normalized=False)
_MIXERS = {
    True: tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    False: tuple(f"mamba.{name}" for name in (*MODULES, *_NORMS)),
}
_MLP = tuple(f"feed_forward.{name}" for name in ("gate_proj", "up_proj", "down_proj"))


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    check_architecture(config)
    count, eps = integer(config, "num_hidden_layers"), number(config, "rms_norm_eps", 1e-6)
    known = (*_MIXERS[True], *_MIXERS[False], *_MLP, "input_layernorm", "pre_ff_layernorm")
    parts = frozenset(known) | EXPERTS.parts(shapes, BLOCKS)
    check_blocks(shapes, BLOCKS, count, parts, frozenset(f"mamba.{name}" for name in TENSORS))
    vocabulary, hidden = shape_of(shapes, "model.embed_tokens.weight", None, None)
    attends = _every(config, "attn_layer", 8, 4, count)
    experts = _every(config, "expert_layer", 2, 1, count)
    if integer(config, "num_experts", 16) == 1:
        experts = [False] * count
    kinds = list(zip(attends, experts, strict=True))
    blocks = tuple(
        _block(config, shapes, index, one, mixture, hidden, eps) for index, (one, mixture) in enumerate(kinds)
    )
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base="model.",
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=integer(config, "max_position_embeddings", 262_144),
        blocks=blocks,
        embedding="model.embed_tokens",
        final_norm=norm(shapes, "model.final_layernorm", "rms", eps, hidden),
        head=HEAD,
        tied=is_tied({"tie_word_embeddings": False, **config}, shapes, HEAD, vocabulary, hidden),
        kinds_by_number=len(set(kinds)) > 1,
    )


def _every(config: Config, key: str, period: int, offset: int, count: int) -> list[bool]:
    """Which layers are every ``period``-th, from ``offset`` on."""
    every = integer(config, f"{key}_period", period)
    first = config.get(f"{key}_offset", offset)
    if type(first) is not int or not 0 <= first < every:
        raise CheckpointError(f"config.json: {key}_offset must be below {every}, not {first!r:.80}")
    return [index % every == first for index in range(count)]


def _block(
    config: Config, shapes: Shapes, index: int, attends: bool, mixture: bool, hidden: int, eps: float
) -> BlockAnatomy:
    prefix = f"{BLOCKS}.{index}"
    mixer = (
        _attention(config, shapes, f"{prefix}.self_attn", hidden)
        if attends
        else _mamba(config, shapes, f"{prefix}.mamba", hidden, eps)
    )
    feed_forward, experts = _feed_forward(config, shapes, prefix, hidden, mixture)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=mixer,
        feed_forward=replace(feed_forward, activation=text(config, "hidden_act", "silu")),
        norm1=norm(shapes, f"{prefix}.input_layernorm", "rms", eps, hidden),
        norm2=norm(shapes, f"{prefix}.pre_ff_layernorm", "rms", eps, hidden),
        order="pre",
        experts=experts,
    )


def _mamba(config: Config, shapes: Shapes, module: str, hidden: int, eps: float) -> StateSpace:
    return state_space(config, shapes, module, hidden, _KEYS, eps)


def _feed_forward(
    config: Config, shapes: Shapes, prefix: str, hidden: int, mixture: bool
) -> tuple[Mlp, Experts | None]:
    if mixture:
        return EXPERTS.of(config, shapes, prefix, hidden)
    up = linear(shapes, f"{prefix}.feed_forward.up_proj", "up", inputs=hidden)
    width = up.out_features
    gate = linear(shapes, f"{prefix}.feed_forward.gate_proj", "gate", inputs=hidden, outputs=width)
    down = linear(shapes, f"{prefix}.feed_forward.down_proj", "down", inputs=width, outputs=hidden)
    return Mlp(gate, up, down, ""), None


def _attention(config: Config, shapes: Shapes, module: str, hidden: int) -> Attention:
    head_dim = head_size(config)
    o = linear(shapes, f"{module}.o_proj", "o", outputs=hidden)
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden, outputs=o.in_features)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=k.out_features)
    return Attention(q, k, v, o, *head_counts(q, k, head_dim), head_dim)
