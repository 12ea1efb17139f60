"""Decoders whose blocks are a norm and a state space, and nothing else: Mamba and Mamba 2."""

from __future__ import annotations

from collections.abc import Callable

from ..anatomy import Anatomy, Shapes
from ..block_anatomy import BlockAnatomy
from ..block_parts.mixer_anatomy import Mixer
from ._config import SizeKeys
from ._state_space import CONTEXT
from ._tensors import (
    Config,
    check_architecture,
    check_blocks,
    integer,
    is_tied,
    norm,
    number,
    shape_of,
    text,
)

SIZES = SizeKeys(ffn=None)
LOOKS_AT_WEIGHTS = True  # it makes up the weights of `out_proj` first
BLOCKS, HEAD, EMBEDDING = "backbone.layers", "lm_head", "backbone.embeddings"

# From the name of a module, the hidden size and the epsilon of norms to the mixer there.
MixerOf = Callable[[str, int, float], Mixer]


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
