"""Learned positions of a decoder: which rows of the table its tokens read, from the mask alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..build import Build

INT64 = ir.DataType.INT64


def learned_positions(build: Build, ids: ir.Value, lengths: ir.Value, table: str) -> ir.Value:
    """Rows ``[batch, seq, hidden]`` of the position table ``table`` for ``ids [batch, seq]``.

    The new tokens of a row are the last of its ``lengths [batch]``. A prompt that is padded on the right has
    fewer tokens than columns; it begins at the first position.
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
    rows, hidden = build.weights.shape(f"{table}.weight")
    weights = build.weights
    stored = graph.weight(
        f"{table}.weight",
        ir.DataType.FLOAT,
        [rows, hidden],
        lambda: weights.tensor(f"{table}.weight").numpy().astype(np.float32),
        read_per_token=4 * hidden,
    )
    return graph.node("Gather", table, [stored, positions], axis=0)
