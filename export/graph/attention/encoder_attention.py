"""Attention of an encoder, in both directions or to what came before: what is added to its scores, and how
positions turn q and k.

The node is ONNX's own: on x86 it takes 0.7 to 0.9 of the time of ``MultiHeadAttention``, which makes its mask
again in every layer. edgepress's own operator for encoders knows neither ropes nor windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Attention, Rope
from ..build import Build
from ..linear.linear import project, project_apart
from .attention import factor, normed
from .distance_bias import biased_by_distance
from .positions import rope_weights
from .relative_positions import Distances, distances, scores_of_distances

PADDING_SCORE = np.finfo(np.float32).min / 2


@dataclass(frozen=True)
class EncoderInputs:
    """What every layer's attention reads beside its hidden states.

    Attributes:
        scores: by window (None is the whole text) what is added to the scores, ``[batch, heads or 1, seq,
            seq]``, or None where nothing is.
        tables: by rope its cosines and sines ``[positions, dim / 2]``.
        distances: those of a text, where attention reads them.
    """

    scores: dict[int | None, ir.Value | None]
    tables: tuple[tuple[Rope, tuple[ir.Value, ir.Value]], ...]
    distances: Distances | None = None


def encoder_inputs(build: Build, mask: ir.Value | None) -> EncoderInputs:
    """Those of a graph whose ``mask [batch, seq]`` is 1 for tokens and 0 for padding; images have none."""
    if mask is None:
        return EncoderInputs({None: None}, ())
    whole = biased_by_distance(build, _scores_of_padding(build, mask))
    parts = [block.attention for block in build.anatomy.blocks]
    reaches = {part.sliding_window: _reach(part) for part in parts if part.sliding_window is not None}
    names = ["rope", *(f"rope.{index}" for index in range(1, len(build.anatomy.ropes())))]
    return EncoderInputs(
        {None: whole, **{window: _within(build, whole, reach) for window, reach in sorted(reaches.items())}},
        tuple(
            (rope, rope_weights(build, rope, name))
            for rope, name in zip(build.anatomy.ropes(), names, strict=False)
        ),
        distances(build, mask),
    )


def _reach(part: Attention) -> int:
    """How many tokens away the farthest is that a token sees: looking back, it counts itself."""
    assert part.sliding_window is not None
    return part.sliding_window - part.causal


def encoder_attention(
    build: Build, hidden: ir.Value, shared: EncoderInputs, part: Attention, name: str
) -> ir.Value:
    """Attention output ``[batch, seq, heads · head_dim]`` before the output projection."""
    if part.qkv is None:
        query, key, value = project_apart(
            build, hidden, [part.q, part.k, part.v], f"{name}.qkv", f"{name}.split"
        )
    else:
        sizes = [part.q.out_features, part.k.out_features, part.v.out_features]
        query, key, value = build.graph.split(
            f"{name}.split", project(build, hidden, [part.qkv], f"{name}.qkv"), sizes
        )
    query, key = normed(build, query, part.q_norm, part), normed(build, key, part.k_norm, part)
    if part.rope is not None:
        query = _turned(build, query, shared, part.rope, f"{name}.query", part.heads)
        key = _turned(build, key, shared, part.rope, f"{name}.key", part.kv_heads)
    scores = shared.scores[part.sliding_window]
    if shared.distances is not None:
        added = scores_of_distances(build, shared.distances, query, key, part, name)
        scores = build.graph.node("Add", f"{name}.scores", [scores, added])
    return build.graph.node(
        "Attention",
        name,
        [query, key, value, scores],
        q_num_heads=part.heads,
        kv_num_heads=part.kv_heads,
        scale=factor(part),
        **({"is_causal": 1} if part.causal else {}),
    )


def _turned(
    build: Build, value: ir.Value, shared: EncoderInputs, rope: Rope, name: str, heads: int
) -> ir.Value:
    """``value [batch, seq, heads · head_dim]``, whose tokens have the positions from 0."""
    ((cos, sin),) = (tables for one, tables in shared.tables if one == rope)
    first = build.graph.constant("rope.first", np.array([0], np.int64))
    return build.graph.contrib(
        "RotaryEmbedding", name, [value, first, cos, sin], num_heads=heads, rotary_embedding_dim=rope.dim
    )


def _scores_of_padding(build: Build, mask: ir.Value) -> ir.Value:
    """What is added to attention scores, ``[batch, 1, seq, seq]``: nothing for tokens, very much less for
    padding.

    It is finite, so that a row without any token gives numbers, which the pooling then leaves out.
    """
    graph = build.graph
    real = graph.node("Cast", "mask.float", [mask], to=ir.DataType.FLOAT)
    one, least = (
        graph.constant("mask.one", np.array(1, np.float32)),
        graph.constant("mask.padding", np.array(PADDING_SCORE, np.float32)),
    )
    absent = graph.node("Mul", "mask.scores", [graph.node("Sub", "mask.absent", [one, real]), least])
    axes = graph.constant("mask.axes", np.array([1, 2], np.int64))
    keys = graph.node("Unsqueeze", "mask.keys", [absent, axes])
    length = graph.node("Shape", "mask.length", [mask], start=1, end=2)
    column = graph.constant("mask.column", np.array([1], np.int64))
    square = graph.node("Concat", "mask.square", [length, column], axis=0)
    return graph.node("Expand", "mask.pairs", [keys, square])


def _within(build: Build, scores: ir.Value, farthest: int) -> ir.Value:
    """``scores`` with very much less for tokens that are more than ``farthest`` apart."""
    graph = build.graph
    zero, one = (graph.constant(f"window.{number}", np.array(number, np.int64)) for number in (0, 1))
    column = graph.constant("window.column", np.array([1], np.int64))
    width = graph.node("Squeeze", "window.width", [graph.node("Shape", "window.shape", [scores], start=3)])
    steps = graph.node("Range", "window.steps", [zero, width, one])
    queries = graph.node("Unsqueeze", "window.queries", [steps, column])
    apart = graph.node("Abs", "window.apart", [graph.node("Sub", "window.between", [steps, queries])])
    reach = graph.constant(f"window.reach.{farthest}", np.array(farthest, np.int64))
    least = graph.constant("mask.padding", np.array(PADDING_SCORE, np.float32))
    outside = graph.node("Greater", f"window.outside.{farthest}", [apart, reach])
    return graph.node("Where", f"window.scores.{farthest}", [outside, least, scores])
