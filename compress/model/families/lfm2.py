"""LFM2: blocks of gated short convolutions, some of grouped-query attention, each with a gated MLP.

Liquid AI, LFM2 Technical Report, 2025, arXiv 2511.23404.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm
from ..block_parts.mixer_anatomy import ShortConvolution
from ._config import SizeKeys, head_size, longest, rope
from ._state_space import causal_convolution
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

# The width of the MLP follows from ``intermediate_size`` by rules of the config's own.
SIZES = SizeKeys(ffn=None)
BLOCKS, HEAD = "model.layers", "lm_head"
CONVOLUTION, ATTENTION = "conv", "full_attention"
_EITHER = {
    CONVOLUTION: ("conv.conv", "conv.in_proj", "conv.out_proj"),
    ATTENTION: tuple(
        f"self_attn.{name}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj", "q_layernorm", "k_layernorm")
    ),
}
_MLP = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
_NORMS = ("operator_norm", "ffn_norm")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    check_architecture(config)
    kinds = layer_kinds(config)
    for index, kind in enumerate(kinds):
        mine = {name: shape for name, shape in shapes.items() if name.startswith(f"{BLOCKS}.{index}.")}
        check_blocks(mine, BLOCKS, len(kinds), frozenset((*_EITHER[kind], *_MLP, *_NORMS)))
    check_blocks(shapes, BLOCKS, len(kinds), frozenset((*sum(_EITHER.values(), ()), *_MLP, *_NORMS)))
    vocabulary, hidden = shape_of(shapes, "model.embed_tokens.weight", None, None)
    turned = rope({"rope_theta": 1e6, **config}, head_size(config))
    eps = number(config, "norm_eps", 1e-5)
    blocks = tuple(_block(config, shapes, index, kind, hidden, eps) for index, kind in enumerate(kinds))
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base="model.",
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=min(integer(config, "max_position_embeddings", 128_000), longest(turned)),
        blocks=blocks,
        embedding="model.embed_tokens",
        final_norm=norm(shapes, "model.embedding_norm", "rms", eps, hidden),
        head=HEAD,
        tied=_is_tied(config, shapes, vocabulary, hidden),
    )


def layer_kinds(config: Config) -> list[str]:
    """What mixes the tokens of each layer."""
    count = integer(config, "num_hidden_layers")
    kinds, attend = config.get("layer_types"), config.get("full_attn_idxs")
    if kinds is None:
        numbers = range(count) if attend is None else attend
        if not isinstance(numbers, list | range) or any(type(one) is not int for one in numbers):
            raise CheckpointError(f"config.json: full_attn_idxs must list layers, not {attend!r:.80}")
        return [ATTENTION if index in numbers else CONVOLUTION for index in range(count)]
    if (
        not isinstance(kinds, list)
        or len(kinds) != count
        or any(kind not in tuple(_EITHER) for kind in kinds)
    ):
        raise CheckpointError(
            f"config.json: layer_types must list {' or '.join(_EITHER)} for each of the {count} layers"
        )
    return kinds


def _is_tied(config: Config, shapes: Shapes, vocabulary: int, hidden: int) -> bool:
    older = {"tie_word_embeddings": config["tie_embedding"]} if "tie_embedding" in config else {}
    return is_tied({**config, **older}, shapes, HEAD, vocabulary, hidden)


def _block(config: Config, shapes: Shapes, index: int, kind: str, hidden: int, eps: float) -> BlockAnatomy:
    prefix = f"{BLOCKS}.{index}"

    def normed(name: str, size: int = hidden) -> Norm:
        return norm(shapes, f"{prefix}.{name}", "rms", eps, size)

    mixer: Attention | ShortConvolution
    if kind == CONVOLUTION:
        mixer = _convolution(config, shapes, f"{prefix}.conv", hidden)
    else:
        mixer = _attention(config, shapes, f"{prefix}.self_attn", hidden, eps)
    up = linear(shapes, f"{prefix}.feed_forward.w3", "up", inputs=hidden)
    width = up.out_features
    gate = linear(shapes, f"{prefix}.feed_forward.w1", "gate", inputs=hidden, outputs=width)
    down = linear(shapes, f"{prefix}.feed_forward.w2", "down", inputs=width, outputs=hidden)
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        mixer=mixer,
        feed_forward=Mlp(gate, up, down, "silu"),
        norm1=normed("operator_norm"),
        norm2=normed("ffn_norm"),
        order="pre",
    )


def _convolution(config: Config, shapes: Shapes, module: str, hidden: int) -> ShortConvolution:
    return ShortConvolution(
        in_proj=linear(shapes, f"{module}.in_proj", "in", inputs=hidden, outputs=3 * hidden),
        out_proj=linear(shapes, f"{module}.out_proj", "out", inputs=hidden, outputs=hidden),
        convolution=causal_convolution(
            shapes, f"{module}.conv", hidden, integer(config, "conv_L_cache", 3, largest=64)
        ),
    )


def _attention(config: Config, shapes: Shapes, module: str, hidden: int, eps: float) -> Attention:
    head_dim = head_size(config)
    o = linear(shapes, f"{module}.out_proj", "o", outputs=hidden)
    q = linear(shapes, f"{module}.q_proj", "q", inputs=hidden, outputs=o.in_features)
    k = linear(shapes, f"{module}.k_proj", "k", inputs=hidden)
    v = linear(shapes, f"{module}.v_proj", "v", inputs=hidden, outputs=k.out_features)
    return Attention(
        q,
        k,
        v,
        o,
        *head_counts(q, k, head_dim),
        head_dim,
        q_norm=norm(shapes, f"{module}.q_layernorm", "rms", eps, head_dim),
        k_norm=norm(shapes, f"{module}.k_layernorm", "rms", eps, head_dim),
        rope=rope({"rope_theta": 1e6, **config}, head_dim),
    )
