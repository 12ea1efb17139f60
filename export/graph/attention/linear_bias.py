"""What a decoder's scores lose by distance (ALiBi): edgepress's own operator takes the slope of each head,
``GroupQueryAttention`` what is added to each score.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....errors import CheckpointError
from ..build import Build
from ..graph_writer import Array
from .cache_io import cast

_END = np.iinfo(np.int64).max


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
