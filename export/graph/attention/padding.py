"""Rows of a batch that are padded on the left, as transformers does it, or on the right: the attention mask
says which. Within the graph the tokens of a row lie side by side from its start, as the cache holds them.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..build import Build

_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Columns:
    """Where the new tokens of each row are.

    Attributes:
        steps: ``[seq]`` int64, 0 to seq - 1; ``width [1]`` is seq.
        skipped: ``[batch, 1]`` int64, columns of padding on the left.
        filled: ``[batch, 1]`` int64, tokens.
    """

    steps: ir.Value
    width: ir.Value
    skipped: ir.Value
    filled: ir.Value


def columns(build: Build, ids: ir.Value, mask: ir.Value, lengths: ir.Value) -> Columns:
    """Those of ``ids [batch, seq]``, which the last columns of ``mask`` belong to; ``lengths [batch]`` counts
    the tokens of a row, cached ones included.
    """
    graph = build.graph
    zero, one = (graph.constant(f"columns.{number}", np.array(number, np.int64)) for number in (0, 1))
    row = graph.constant("columns.axis", np.array([1], np.int64))
    end = graph.constant("columns.end", np.array([_END], np.int64))
    width = graph.node("Shape", "columns.width", [ids], start=1, end=2)
    steps = graph.node("Range", "columns.steps", [zero, graph.node("Squeeze", "columns.count", [width]), one])
    begin = graph.node("Neg", "columns.begin", [width])
    new = graph.node("Slice", "columns.new", [mask, begin, end, row])
    new = graph.node("Cast", "columns.mask", [new], to=ir.DataType.INT32)
    skipped = graph.node("ArgMax", "columns.skipped", [new], axis=1, keepdims=1)
    filled = graph.node("Min", "columns.filled", [lengths, width])
    return Columns(steps, width, skipped, graph.node("Unsqueeze", "columns.rows", [filled, row]))


def packed(build: Build, ids: ir.Value, found: Columns) -> ir.Value:
    """``ids [batch, seq]`` with the padding of each row behind its tokens."""
    graph = build.graph
    moved = graph.node("Add", "columns.moved", [found.steps, found.skipped])
    source = graph.node("Mod", "columns.source", [moved, found.width])
    return graph.node("GatherElements", "columns.ids", [ids, source], axis=1)


def kept_places(build: Build, kept: ir.Value, found: Columns) -> ir.Value:
    """Places ``[batch, kept, 1]`` in packed rows: the last ``kept [1]`` of each row up to its last token, or
    where that is 0 all columns in the order in which they came.
    """
    graph = build.graph
    row = graph.constant("columns.axis", np.array([1], np.int64))
    end = graph.constant("columns.end", np.array([_END], np.int64))
    some = graph.node("Cast", "kept.some", [kept], to=ir.DataType.BOOL)
    back = graph.node("Neg", "kept.unmoved", [found.skipped])
    shift = graph.node("Where", "kept.shift", [some, found.filled, back])
    order = graph.node("Add", "kept.shifted", [found.steps, shift])
    order = graph.node("Mod", "kept.order", [order, found.width])
    # Slicing from -n keeps the last n columns, and from -0 all of them.
    last = graph.node("Slice", "kept.last", [order, graph.node("Neg", "kept.start", [kept]), end, row])
    return graph.node(
        "Unsqueeze", "kept.places", [last, graph.constant("kept.axis", np.array([2], np.int64))]
    )


def keep(build: Build, places: ir.Value, name: str, value: ir.Value) -> ir.Value:
    """The rows of ``value [batch, seq, size]`` at ``places``: ``[batch, kept, size]``."""
    return build.graph.node("GatherND", name, [value, places], batch_dims=1)
