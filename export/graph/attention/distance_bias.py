"""What is added to the scores of an encoder by the distance between two tokens: one table for all blocks,
whose rows serve more tokens each the farther they are (Raffel et al., T5, 2019, arXiv 1910.10683).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch

from ..build import Build
from ..graph_writer import Array


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
