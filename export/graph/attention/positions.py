"""Positions of a decoder's tokens: rotary embedding as tables of cosines and sines, or rows of a learned
table.

The frequencies of rotary embedding come from transformers' own functions, so that scaled variants are what
the model was trained with.

What a decoder's scores lose by distance (ALiBi): edgepress's own operator takes the slope of each head,
``GroupQueryAttention`` what is added to each score.
"""

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from ....compress.model.block_anatomy import Rope
from ....compress.model.graph_limits import rope_kind
from ....errors import CheckpointError
from ..build import Build
from ..graph_writer import Array
from .cache_io import cast

_END = np.iinfo(np.int64).max


def rope_tables(rope: Rope, positions: int, factor: float = 1.0) -> tuple[Array, Array]:
    """Cosines and sines ``[positions, dim / 2]`` float32, times ``factor``."""
    frequencies, scale = _frequencies(rope, positions)
    scale *= factor
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies[None, :]
    return (angles.cos() * scale).numpy().astype(np.float32), (angles.sin() * scale).numpy().astype(
        np.float32
    )


def rope_weights(build: Build, rope: Rope, name: str, factor: float = 1.0) -> tuple[ir.Value, ir.Value]:
    """:func:`rope_tables` of all positions of the model as initializers."""
    positions = build.anatomy.max_positions

    def table(index: int) -> Array:
        return rope_tables(rope, positions, factor)[index]

    shape, row_bytes = [positions, rope.dim // 2], 2 * rope.dim
    kind, graph = ir.DataType.FLOAT, build.graph
    cos = graph.weight(f"{name}.cos", kind, shape, lambda: table(0), read_per_token=row_bytes)
    return cos, graph.weight(f"{name}.sin", kind, shape, lambda: table(1), read_per_token=row_bytes)


def _frequencies(rope: Rope, positions: int) -> tuple[torch.Tensor, float]:
    if rope_kind(rope) == "default":
        return 1.0 / (rope.theta ** (torch.arange(0, rope.dim, 2, dtype=torch.float32) / rope.dim)), 1.0
    from transformers import PretrainedConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling: dict[str, Any] = {key: value for key, value in rope.scaling.items() if key != "type"}
    scaling.pop("partial_rotary_factor", None)  # dim counts the rotated channels already
    scaling |= {"rope_type": rope_kind(rope), "rope_theta": rope.theta}
    config = PretrainedConfig(
        hidden_size=rope.dim,
        num_attention_heads=1,
        head_dim=rope.dim,
        max_position_embeddings=positions,
        rope_theta=rope.theta,
        rope_parameters=scaling,
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS[rope_kind(rope)](config, "cpu")
    if not math.isfinite(scale) or not bool(torch.isfinite(frequencies).all()):
        raise CheckpointError(f"rope settings give angles that are not finite: {dict(rope.scaling)}")
    return frequencies, float(scale)


def learned_positions(build: Build, ids: ir.Value, lengths: ir.Value, table: str) -> ir.Value:
    """Rows ``[batch, seq, hidden]`` of the position table ``table`` for ``ids [batch, seq]``.

    The new tokens of a row are the last of its ``lengths [batch]``. A prompt that is padded has fewer tokens
    than columns; it begins at the first position.
    """
    graph, offset = build.graph, build.anatomy.position_offset
    zero = graph.constant("position.zero", np.array(0, np.int64))
    one = graph.constant("position.one", np.array(1, np.int64))
    first = graph.constant("position.first", np.array(offset, np.int64))
    column = graph.constant("position.column", np.array([-1, 1], np.int64))
    width = graph.node("Gather", "position.width", [graph.node("Shape", "position.shape", [ids]), one])
    cached = graph.node("Sub", "position.cached", [lengths, width])
    if offset:
        cached = graph.node("Add", "position.begin", [cached, first])
    start = graph.node("Max", "position.start", [cached, first])
    start = graph.node("Reshape", "position.rows", [start, column])
    steps = graph.node("Range", "position.steps", [zero, width, one])
    positions = graph.node("Add", "position.ids", [start, steps])
    return graph.node("Gather", table, [build.table(table), positions], axis=0)


def linear_biases(build: Build, ids: ir.Value, mask: ir.Value) -> ir.Value | None:
    """Slopes ``[heads]``, or scores ``[1, heads, seq, total]`` for ``ids [batch, seq]`` and ``mask [batch,
    total]``; None where no layer has any.

    The scores of all queries are the last one's: a softmax stays what it is where all of a row is more.
    """
    graph, parts = build.graph, build.anatomy.attentions()
    first, *others = [part.slopes for part in parts] or [None]
    if any(slopes != first for slopes in others):
        raise CheckpointError("layers whose linear biases differ cannot be exported")
    if first is None:
        return None
    slopes, longest = np.array(first, np.float32), build.anatomy.max_positions
    if build.tiles:
        return graph.constant("slopes", slopes)

    def by_distance() -> Array:
        return slopes[None, :, None, None] * np.arange(1 - longest, 1, dtype=np.float32)

    table = graph.weight("slopes.by_distance", ir.DataType.FLOAT, [1, len(first), 1, longest], by_distance)
    one, heads, axis, end = (
        graph.constant(f"slopes.{name}", np.array([value], np.int64))
        for name, value in (("one", 1), ("heads", len(first)), ("axis", 3), ("end", _END))
    )
    seq = graph.node("Shape", "slopes.queries", [ids], start=1, end=2)
    total = graph.node("Shape", "slopes.keys", [mask], start=1, end=2)
    row = graph.node("Slice", "slopes.row", [table, graph.node("Neg", "slopes.begin", [total]), end, axis])
    shape = graph.node("Concat", "slopes.shape", [one, heads, seq, total], axis=0)
    return cast(build, graph.node("Expand", "slopes.scores", [row, shape]), ir.DataType.FLOAT16)
