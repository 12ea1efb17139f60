"""Mamba's mixers as checkpoints store them, by the names of transformers' modules.

Causal depthwise convolutions as checkpoints store them: ``[channels, 1, width]``, some with a bias.

Decoders whose blocks are a norm and a state space, and nothing else: Mamba and Mamba 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, isfinite

from ....errors import CheckpointError
from ....files.limits import finite_number
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import BlockAnatomy, Norm
from ..block_parts.mixer_anatomy import CausalConvolution, HeadedStateSpace, Mixer, StateSpace
from ._config import SizeKeys
from ._tensors import (
    Config,
    check_architecture,
    check_blocks,
    integer,
    is_tied,
    linear,
    norm,
    number,
    shape_of,
    text,
)

MODULES = ("in_proj", "x_proj", "dt_proj", "out_proj", "conv1d")
TENSORS = ("A_log", "D")
# These have no longest text: a state holds all of it.
CONTEXT = 1 << 20
_WIDEST = 64
SIZES = SizeKeys(ffn=None)
LOOKS_AT_WEIGHTS = True  # it makes up the weights of `out_proj` first
BLOCKS, HEAD, EMBEDDING = "backbone.layers", "lm_head", "backbone.embeddings"
# From the name of a module, the hidden size and the epsilon of norms to the mixer there.
MixerOf = Callable[[str, int, float], Mixer]


@dataclass(frozen=True)
class StateSpaceKeys:
    """What a config calls the sizes of a mixer, and the names of its inner norms, where it has some."""

    size: str = "state_size"
    width: str = "conv_kernel"
    rank: str = "time_step_rank"
    norms: tuple[str, str, str] | None = None


def state_space(
    config: Config, shapes: Shapes, module: str, hidden: int, keys: StateSpaceKeys, eps: float
) -> StateSpace:
    """The mixer ``module`` of Mamba."""
    size, rank = integer(config, keys.size, 16), _rank(config, hidden, keys.rank)
    out = linear(shapes, f"{module}.out_proj", "out", outputs=hidden)
    width = out.in_features
    shape_of(shapes, f"{module}.A_log", width, size)
    shape_of(shapes, f"{module}.D", width)
    shape_of(shapes, f"{module}.dt_proj.weight", width, rank)
    shape_of(shapes, f"{module}.dt_proj.bias", width)
    sizes = (rank, size, size)
    norms: list[Norm | None] = [None] * 3
    if keys.norms is not None:
        pairs = zip(keys.norms, sizes, strict=True)
        norms = [norm(shapes, f"{module}.{name}", "rms", eps, wide) for name, wide in pairs]
    return StateSpace(
        in_proj=linear(shapes, f"{module}.in_proj", "in", inputs=hidden, outputs=2 * width),
        x_proj=linear(shapes, f"{module}.x_proj", "x", inputs=width, outputs=sum(sizes)),
        out_proj=out,
        convolution=causal_convolution(shapes, f"{module}.conv1d", width, _width(config, keys.width)),
        module=module,
        step=f"{module}.dt_proj",
        rank=rank,
        size=size,
        activation=text(config, "hidden_act", "silu"),
        step_norm=norms[0],
        b_norm=norms[1],
        c_norm=norms[2],
    )


def headed_state_space(
    config: Config, shapes: Shapes, module: str, hidden: int, eps: float
) -> HeadedStateSpace:
    """The mixer ``module`` of Mamba 2; raises as :func:`state_space`."""
    heads, head_dim = integer(config, "num_heads", 128), integer(config, "head_dim", 64)
    groups, size = integer(config, "n_groups", 8), integer(config, "state_size", 128)
    width = heads * head_dim
    if heads % groups:
        raise CheckpointError(f"config.json: n_groups is {groups}, which does not divide {heads} heads")
    for name in ("A_log", "D", "dt_bias"):
        shape_of(shapes, f"{module}.{name}", heads)
    mixed = width + 2 * groups * size
    least, most = _limits(config)
    return HeadedStateSpace(
        in_proj=linear(shapes, f"{module}.in_proj", "in", inputs=hidden, outputs=width + mixed + heads),
        out_proj=linear(shapes, f"{module}.out_proj", "out", inputs=width, outputs=hidden),
        convolution=causal_convolution(shapes, f"{module}.conv1d", mixed, _width(config, "conv_kernel")),
        module=module,
        heads=heads,
        head_dim=head_dim,
        groups=groups,
        size=size,
        activation=text(config, "hidden_act", "silu"),
        norm=norm(shapes, f"{module}.norm", "rms", eps, width),
        least=least,
        most=most,
        chunk=integer(config, "chunk_size", 256, largest=1 << 16),
    )


def _width(config: Config, key: str) -> int:
    return integer(config, key, 4, largest=_WIDEST)


def _rank(config: Config, hidden: int, key: str) -> int:
    return ceil(hidden / 16) if config.get(key, "auto") == "auto" else integer(config, key)


def _limits(config: Config) -> tuple[float, float]:
    found = config.get("time_step_limit")
    if found is None:
        return 0.0, inf
    if isinstance(found, list) and len(found) == 2:
        least, most = map(_limit, found)
        if least is not None and most is not None and 0 <= least < most and isfinite(least):
            return least, most
    raise CheckpointError(f"config.json: time_step_limit must be two ascending numbers, not {found!r:.80}")


def _limit(value: object) -> float | None:
    """A number; an infinite one is an object in what transformers writes."""
    if isinstance(value, dict):
        return inf if value == {"__float__": "Infinity"} else None
    return inf if value == inf else finite_number(value)


def causal_convolution(shapes: Shapes, module: str, channels: int, width: int) -> CausalConvolution:
    """The convolution ``module``; sizes are enforced, and a bias is there when it is stored."""
    shape_of(shapes, f"{module}.weight", channels, 1, width)
    bias = f"{module}.bias" in shapes
    if bias:
        shape_of(shapes, f"{module}.bias", channels)
    return CausalConvolution(module, channels, width, bias)


def mamba_like(
    config: Config,
    shapes: Shapes,
    mixer: MixerOf,
    parts: tuple[str, ...],
    tensors: tuple[str, ...],
    *,
    tied: bool,
) -> Anatomy:
    """The anatomy of a decoder whose mixers have the modules ``parts`` and the ``tensors`` beside them;
    ``tied`` is where the config is silent.
    """
    check_architecture(config)
    count, eps = integer(config, "num_hidden_layers"), number(config, "layer_norm_epsilon", 1e-5)
    known = frozenset(("norm", *(f"mixer.{part}" for part in parts)))
    check_blocks(shapes, BLOCKS, count, known, frozenset(f"mixer.{name}" for name in tensors))
    vocabulary, hidden = shape_of(shapes, f"{EMBEDDING}.weight", None, None)
    blocks = tuple(_block(shapes, f"{BLOCKS}.{index}", index, mixer, hidden, eps) for index in range(count))
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="decoder",
        base="backbone.",
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=CONTEXT,
        blocks=blocks,
        embedding=EMBEDDING,
        final_norm=norm(shapes, "backbone.norm_f", "rms", eps, hidden),
        head=HEAD,
        tied=is_tied({"tie_word_embeddings": tied, **config}, shapes, HEAD, vocabulary, hidden),
    )


def _block(shapes: Shapes, prefix: str, index: int, mixer: MixerOf, hidden: int, eps: float) -> BlockAnatomy:
    one = norm(shapes, f"{prefix}.norm", "rms", eps, hidden)
    mixed = mixer(f"{prefix}.mixer", hidden, eps)
    return BlockAnatomy(index, prefix, mixed, None, norm1=one, norm2=one, order="alone")
