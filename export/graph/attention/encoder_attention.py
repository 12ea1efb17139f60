"""Attention of an encoder, in both directions or to what came before: what is added to its scores, and how
positions turn q and k.

The node is ONNX's own: on x86 it takes 0.7 to 0.9 of the time of ``MultiHeadAttention``, which makes its mask
again in every layer. edgepress's own operator for encoders knows neither ropes nor windows.

What is added to the scores of an encoder by the distance between two tokens: one table for all blocks,
whose rows serve more tokens each the farther they are (Raffel et al., T5, 2019, arXiv 1910.10683).
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from ....compress.model.block_anatomy import Attention, Rope
from ..build import Build
from ..graph_writer import Array
from ..linear.linear import project, project_apart
from .attention import factor, normed
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


def biased_by_distance(build: Build, mask: ir.Value) -> ir.Value:
    """``mask [batch, 1, seq, seq]`` with the model's biases ``[1, heads, seq, seq]`` added, if it has any."""
    graph = build.graph
    if not build.anatomy.position_biases:
        return mask
    zero, one = (graph.constant(f"distance.{number}", np.array(number, np.int64)) for number in (0, 1))
    width = graph.node("Squeeze", "distance.width", [graph.node("Shape", "distance.shape", [mask], start=3)])
    steps = graph.node("Range", "distance.steps", [zero, width, one])
    column = graph.constant("distance.column", np.array([1], np.int64))
    queries = graph.node("Unsqueeze", "distance.queries", [steps, column])
    apart = graph.node("Sub", "distance.apart", [steps, queries])
    return graph.node("Add", "distance.scores", [mask, _by_head(build, apart, causal=False)])


def causal_biases(build: Build, ids: ir.Value, cached: ir.Value, never: float) -> ir.Value:
    """What a decoder adds to the scores of tokens that it wrote, ``[1, heads or 1, seq, cached + seq]``:
    ``never`` to those after the query, and the model's biases, if it has any, to the others. ``cached`` is
    the number of tokens before ``ids [batch, seq]``.
    """
    graph = build.graph
    zero, one = (graph.constant(f"distance.{number}", np.array(number, np.int64)) for number in (0, 1))
    width = graph.node("Squeeze", "distance.width", [graph.node("Shape", "distance.shape", [ids], start=1)])
    total = graph.node("Add", "distance.total", [cached, width])
    queries = graph.node("Range", "distance.new", [cached, total, one])
    keys = graph.node("Range", "distance.keys", [zero, total, one])
    column = graph.constant("distance.column", np.array([1], np.int64))
    apart = graph.node(
        "Sub", "distance.apart", [keys, graph.node("Unsqueeze", "distance.queries", [queries, column])]
    )
    after = graph.node("Greater", "distance.after", [apart, zero])
    bias = graph.constant("distance.nothing", np.zeros((1, 1, 1, 1), np.float32))
    if build.anatomy.position_biases:
        front = graph.constant("distance.front", np.array([0], np.int64))
        bias = graph.node("Unsqueeze", "distance.batch", [_by_head(build, apart, causal=True), front])
    least = graph.constant("distance.never", np.array(never, np.float32))
    return graph.node("Where", "distance.scores", [after, least, bias])


def _by_head(build: Build, apart: ir.Value, *, causal: bool) -> ir.Value:
    """Biases ``[heads, queries, keys]`` of keys that lie ``apart [queries, keys]`` after their query."""
    graph, anatomy = build.graph, build.anatomy
    (module,), farthest = anatomy.position_biases, anatomy.farthest_bias
    shape = [2 * farthest + 1, build.weights.shape(f"{module}.weight")[1]]

    def by_distance() -> Array:
        table = build.weights.tensor(f"{module}.weight").numpy()
        return table[rows_of_distances(farthest, len(table), causal=causal)].astype(np.float32)

    table = graph.weight(f"{module}.by_distance", ir.DataType.FLOAT, shape, by_distance)
    least, most = (
        graph.constant(f"distance.{far}", np.array(far, np.int64)) for far in (-farthest, farthest)
    )
    near = graph.node("Clip", "distance.near", [apart, least, most])
    rows = graph.node("Gather", module, [table, graph.node("Add", "distance.rows", [near, most])], axis=0)
    return graph.node("Transpose", "distance.by_head", [rows], perm=[2, 0, 1])


def rows_of_distances(farthest: int, rows: int, *, causal: bool = False) -> Array:
    """The row of the table ``[rows, heads]`` for keys that lie ``-farthest`` to ``farthest`` tokens after
    their query; in a ``causal`` model none lies after it.
    """
    after = torch.arange(-farthest, farthest + 1)
    each = rows if causal else rows // 2  # of them for keys on one side
    near, distance = each // 2, (-after).clamp_min(0) if causal else after.abs()
    # In float32, as the model rounds it.
    far = torch.log(distance.clamp_min(1).float() / near) / math.log(farthest / near) * (each - near)
    row = torch.where(distance < near, distance, (near + far.to(torch.int64)).clamp_max(each - 1))
    return row.numpy() if causal else (row + each * (after > 0)).numpy()
