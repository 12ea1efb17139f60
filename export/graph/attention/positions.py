"""Positions of a decoder's tokens: rotary embedding as tables of cosines and sines, or rows of a learned
table.

The frequencies of rotary embedding come from transformers' own functions, so that scaled variants are what
the model was trained with.
"""

from __future__ import annotations

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
