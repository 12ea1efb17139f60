"""ONNX's ``Scan`` over the tokens of a batch: one state goes in and out, and each token gives a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from .build import Build

_TIME = 1
_FLOAT = ir.TensorType(ir.DataType.FLOAT)


class Step:
    """What happens at one token: nodes that read the state ``[batch, *size]``, the token's part of each
    sequence, each ``[batch, *parts[name]]``, and any value of the graph around. Names are below ``name``.
    """

    def __init__(self, name: str, size: Sequence[int], parts: Mapping[str, Sequence[int]]) -> None:
        self.name = name
        self.state = self._input("state", size)
        self.parts = [self._input(part, wide) for part, wide in parts.items()]
        self._nodes: list[ir.Node] = []

    def _input(self, part: str, size: Sequence[int]) -> ir.Value:
        return ir.Value(name=f"{self.name}.step.{part}", type=_FLOAT, shape=_shape(size))

    def node(self, op: str, name: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Append a standard ONNX node with one output and return that."""
        made = ir.node(op, inputs, attributes, name=f"{self.name}.step.{name}")
        made.outputs[0].name, made.outputs[0].type = f"{made.name}/0", _FLOAT
        self._nodes.append(made)
        return made.outputs[0]

    def graph(self, state: ir.Value, row: ir.Value, size: Sequence[int]) -> ir.Graph:
        """The body that leaves ``state``, and ``row [batch, *size]`` for the token."""
        state.shape, row.shape = self.state.shape, _shape(size)
        inputs, outputs = [self.state, *self.parts], [state, row]
        return ir.Graph(inputs, outputs, nodes=self._nodes, name=f"{self.name}.step")


def _shape(size: Sequence[int]) -> ir.Shape:
    return ir.Shape(["batch_size", *size])


def scan(
    build: Build, name: str, state: ir.Value, sequences: Sequence[ir.Value], body: ir.Graph
) -> tuple[ir.Value, ir.Value]:
    """``body`` for each token of ``sequences [batch, seq, …]``, the state ``[batch, …]`` going from one to
    the next: the rows ``[batch, seq, …]`` and the last state.
    """
    last, rows = build.graph.outputs(
        "Scan",
        name,
        [state, *sequences],
        2,
        body=body,
        num_scan_inputs=len(sequences),
        scan_input_axes=[_TIME] * len(sequences),
        scan_output_axes=[_TIME],
    )
    return rows, last
