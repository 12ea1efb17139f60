"""Causal depthwise convolutions with a state: the last columns that went in.

A token's sum has as many terms as the convolution is wide, three or four: each is a product of shifted
columns with a row of weights, so that the states of a prompt need not be transposed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.model.block_parts.mixer_anatomy import CausalConvolution, ShortConvolution
from .attention.padding import keep
from .build import Build
from .graph_writer import Array
from .linear.linear import project
from .states import RowStates, known

_TIME = 1


def convolved(
    build: Build, value: ir.Value, part: CausalConvolution, past: ir.Value, rows: RowStates
) -> tuple[ir.Value, ir.Value]:
    """The convolution of ``value [batch, seq, channels]`` behind ``past [batch, channels, width]``, and that
    state after it.
    """
    graph, name = build.graph, part.module
    before = graph.node("Transpose", f"{name}.past", [known(build, past, rows)], perm=[0, 2, 1])
    columns = graph.node("Concat", f"{name}.columns", [before, value], axis=_TIME)
    axis = graph.constant("convolution.axis", np.array([_TIME], np.int64))
    total: ir.Value | None = None
    for place in range(part.width):
        start = graph.constant(f"convolution.{place + 1}", np.array([place + 1], np.int64))
        end = graph.node("Add", f"{name}.end.{place}", [rows.width, start])
        shifted = graph.node("Slice", f"{name}.shifted.{place}", [columns, start, end, axis])
        term = graph.node("Mul", f"{name}.term.{place}", [shifted, _row(build, part, place)])
        total = term if total is None else graph.node("Add", f"{name}.sum.{place}", [total, term])
    assert total is not None
    if part.bias:
        total = graph.node("Add", f"{name}.biased", [total, build.vector(f"{name}.bias")])
    return total, _last(build, columns, part, rows)


def short_convolution(
    build: Build, value: ir.Value, part: ShortConvolution, past: ir.Value, rows: RowStates
) -> tuple[ir.Value, ir.Value]:
    """What ``out_proj`` reads of ``value [batch, seq, hidden]``, and the state after it."""
    graph, name = build.graph, part.convolution.module
    width = part.out_proj.in_features
    both = project(build, value, [part.in_proj], part.in_proj.name)
    b, c, x = graph.split(f"{name}.split", both, [width] * 3)
    gated = graph.node("Mul", f"{name}.gated", [b, x])
    mixed, present = convolved(build, gated, part.convolution, past, rows)
    return graph.node("Mul", f"{name}.out", [c, mixed]), present


def _row(build: Build, part: CausalConvolution, place: int) -> ir.Value:
    """The weights ``[channels]`` of the tokens that are ``width - 1 - place`` before."""
    name, weights = f"{part.module}.weight", build.weights

    def make() -> Array:
        return weights.tensor(name)[:, 0, place].numpy().astype(np.float32)

    return build.graph.weight(f"{name}.{place}", ir.DataType.FLOAT, [part.channels], make)


def _last(build: Build, columns: ir.Value, part: CausalConvolution, rows: RowStates) -> ir.Value:
    """Of ``columns [batch, width + seq, channels]`` the last ``width`` up to each row's last token,
    ``[batch, channels, width]``.
    """
    graph, name = build.graph, part.module
    steps = graph.constant(f"convolution.steps.{part.width}", np.arange(part.width, dtype=np.int64))
    places = graph.node("Add", f"{name}.places", [rows.filled, steps])
    deep = graph.constant("convolution.deep", np.array([2], np.int64))
    last = keep(build, graph.node("Unsqueeze", f"{name}.rows", [places, deep]), f"{name}.last", columns)
    return graph.node("Transpose", f"{name}.present", [last], perm=[0, 2, 1])
