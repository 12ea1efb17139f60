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

_FARTHEST = 128  # tokens that are farther apart share the last row


def biased_by_distance(build: Build, mask: ir.Value) -> ir.Value:
    """``mask [batch, 1, seq, seq]`` with the model's biases ``[1, heads, seq, seq]`` added, if it has any."""
    graph, anatomy = build.graph, build.anatomy
    if not anatomy.position_biases:
        return mask
    (module,) = anatomy.position_biases
    longest, heads = anatomy.max_positions, build.weights.shape(f"{module}.weight")[1]

    def by_distance() -> Array:
        table = build.weights.tensor(f"{module}.weight").numpy()
        return table[rows_of_distances(longest, len(table))].astype(np.float32)

    table = graph.weight(f"{module}.by_distance", ir.DataType.FLOAT, [2 * longest - 1, heads], by_distance)
    zero, one = (graph.constant(f"distance.{number}", np.array(number, np.int64)) for number in (0, 1))
    last = graph.constant("distance.last", np.array(longest - 1, np.int64))
    width = graph.node("Squeeze", "distance.width", [graph.node("Shape", "distance.shape", [mask], start=3)])
    steps = graph.node("Range", "distance.steps", [zero, width, one])
    column = graph.constant("distance.column", np.array([1], np.int64))
    queries = graph.node("Unsqueeze", "distance.queries", [steps, column])
    apart = graph.node("Sub", "distance.apart", [steps, queries])
    rows = graph.node("Gather", module, [table, graph.node("Add", "distance.rows", [apart, last])], axis=0)
    by_head = graph.node("Transpose", "distance.by_head", [rows], perm=[2, 0, 1])
    return graph.node("Add", "distance.scores", [mask, by_head])


def rows_of_distances(longest: int, rows: int) -> Array:
    """The row of the table ``[rows, heads]`` for keys that lie ``1 - longest`` to ``longest - 1`` tokens
    after their query.
    """
    after = torch.arange(1 - longest, longest)
    half, near = rows // 2, rows // 4
    distance = after.abs()
    # In float32, as the model rounds it.
    far = torch.log(distance.clamp_min(1).float() / near) / math.log(_FARTHEST / near) * (half - near)
    row = torch.where(distance < near, distance, (near + far.to(torch.int64)).clamp_max(half - 1))
    return (row + half * (after > 0)).numpy()
