"""The two graphs of an encoder–decoder as optimum and transformers.js drive them.

The encoder gives its states. The decoder takes those, and a cache of four parts a block: keys and values of
what was written and of what was read. The latter it computes in the first step alone: ``use_cache_branch``
says whether the cache holds them, and it gives them back either way. Optimum fills an empty cache with the
sizes of the config, so that where a block has others (heads that were pruned, T5's own head size) the sizes
of the inputs are left open.

Names and shapes as in huggingface/optimum-onnx (``ORTDecoderForSeq2Seq``) and huggingface/transformers.js
(``getCacheNames``).
"""

import numpy as np
import onnx_ir as ir

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Attention
from .audio_nodes import sound_states
from .build import Build
from .encoder_decoder_nodes import (
    SPECTRA,
    Pair,
    attention_by_head,
    by_head,
    cross_of,
    decoded,
    embedded,
    encoded,
    past_shape,
    scores_of_padding,
)
from .linear.linear import project_apart

INT64, FLOAT, BOOL = ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL
# The part that makes keys and values of what was read, of all blocks.
CROSSING = "read"
READ, CACHED = "encoder_sequence_length", "past_decoder_sequence_length"
_KINDS = ("key", "value")


def build_hub_encoder(build: Build) -> None:
    """Texts, or spectra of sounds, in; states out."""
    graph, hearing = build.graph, build.anatomy.hearing
    length: int | str = READ
    if hearing is not None:
        shape: list[int | str] = ["batch_size", hearing.bins, hearing.frames]
        spectra, length = graph.input("input_features", FLOAT, shape), hearing.tokens
        mask, hidden = None, sound_states(build, hearing, spectra)
        build.end_part(SPECTRA, [spectra], [hidden])
    else:
        ids = graph.input("input_ids", INT64, ["batch_size", READ])
        mask = graph.input("attention_mask", INT64, ["batch_size", READ])
        hidden = embedded(build, ids, graph.constant("position.none", np.array(0, np.int64)))
    states = graph.node("Identity", "states", [encoded(build, hidden, mask)])
    graph.output(states, "last_hidden_state", FLOAT, ["batch_size", length, build.anatomy.hidden_size])


def build_hub_decoder(build: Build, whole: Anatomy) -> None:
    """``whole`` is the anatomy of both stacks."""
    graph, blocks, hearing = build.graph, build.anatomy.blocks, whole.hearing
    length: int | str = READ if hearing is None else hearing.tokens
    mask = None
    if hearing is None:
        mask = graph.input("encoder_attention_mask", INT64, ["batch_size", READ])
    ids = graph.input("input_ids", INT64, ["batch_size", "decoder_sequence_length"])
    states = graph.input("encoder_hidden_states", FLOAT, ["batch_size", length, whole.hidden_size])
    pasts, kept, stated = [], [], _sizes_are_the_config_s(whole)
    for index, block in enumerate(blocks):
        part, cross = block.attention, cross_of(block)
        pasts.append(_cache(build, f"{index}.decoder", part, CACHED, stated=stated))
        kept.append(_cache(build, f"{index}.encoder", cross, f"{READ}_out", stated=stated))
    cached = graph.input("use_cache_branch", BOOL, [1])
    read = _read(build, states, cached, kept)
    if not stated:
        pasts = [
            (_as_kept(build, key, block.attention), _as_kept(build, value, block.attention))
            for (key, value), block in zip(pasts, blocks, strict=True)
        ]
    known = None if mask is None else scores_of_padding(build, ids, mask)

    def reader(index: int, part: Attention, query: ir.Value) -> ir.Value:
        return attention_by_head(build, part, query, read[index], known)

    logits, presents = decoded(build, ids, pasts, read, reader)
    graph.output(logits, "logits", FLOAT, ["batch_size", "decoder_sequence_length", whole.vocab_size])
    for index, block in enumerate(blocks):
        shapes = (past_shape(build, block, f"{CACHED} + 1"), _by_head_shape(cross_of(block), length))
        pairs = {"decoder": presents[index], "encoder": read[index]}
        for (side, pair), shape in zip(pairs.items(), shapes, strict=True):
            for kind, value in zip(_KINDS, pair, strict=True):
                graph.output(value, f"present.{index}.{side}.{kind}", FLOAT, shape)


def _sizes_are_the_config_s(whole: Anatomy) -> bool:
    """Whether all heads are what a client makes of the config: as many everywhere, and the hidden size in
    all.
    """
    parts = [part for block in whole.blocks for part in (block.attention, block.cross) if part is not None]
    sizes = {(part.heads, part.kv_heads, part.head_dim) for part in parts}
    heads, kv_heads, head_dim = next(iter(sizes))
    return len(sizes) == 1 and heads == kv_heads and heads * head_dim == whole.hidden_size


def _cache(build: Build, name: str, part: Attention, length: str, *, stated: bool) -> Pair:
    sizes: tuple[int | str, int | str] = (part.kv_heads, part.head_dim) if stated else ("heads", "head_dim")
    shape = ["batch_size", sizes[0], length, sizes[1]]
    key, value = (build.graph.input(f"past_key_values.{name}.{kind}", FLOAT, shape) for kind in _KINDS)
    return key, value


def _read(build: Build, states: ir.Value, cached: ir.Value, kept: list[Pair]) -> list[Pair]:
    """Keys and values ``[batch, heads, tokens, head_dim]`` of what was read, by block."""
    graph, parts = build.graph, [cross_of(block) for block in build.anatomy.blocks]

    def as_they_were() -> list[ir.Value]:
        return [
            graph.node("Identity", f"{part.module}.{kind}.kept", [value])
            for part, pair in zip(parts, kept, strict=True)
            for kind, value in zip(_KINDS, pair, strict=True)
        ]

    def computed() -> list[ir.Value]:
        made = []
        for part in parts:
            name = part.module
            both = project_apart(build, states, [part.k, part.v], f"{name}.kv", f"{name}.split")
            made += [
                by_head(build, value, part.kv_heads, part.head_dim, f"{name}.{kind}")
                for kind, value in zip(_KINDS, both, strict=True)
            ]
        return made

    found = graph.either("read", cached, (as_they_were, computed))
    build.int8_zeros = None  # those are the branch's
    build.end_part(CROSSING, [states], found)
    return list(zip(found[::2], found[1::2], strict=True))


def _as_kept(build: Build, past: ir.Value, part: Attention) -> ir.Value:
    """``past`` with the sizes of ``part``, which an empty one of a client need not have."""
    graph, name = build.graph, str(past.name)
    sizes = (
        graph.node("Shape", f"{name}.batch", [past], start=0, end=1),
        graph.constant(f"size.{part.kv_heads}", np.array([part.kv_heads], np.int64)),
        graph.node("Shape", f"{name}.length", [past], start=2, end=3),
        graph.constant(f"size.{part.head_dim}", np.array([part.head_dim], np.int64)),
    )
    shape = graph.node("Concat", f"{name}.sizes", list(sizes), axis=0)
    return graph.node("Reshape", f"{name}.sized", [past, shape], allowzero=1)


def _by_head_shape(part: Attention, length: int | str) -> list[int | str]:
    return ["batch_size", part.kv_heads, length, part.head_dim]
