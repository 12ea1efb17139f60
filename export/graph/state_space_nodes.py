"""Mamba's state spaces as nodes: everything that tokens do by themselves in products and sums over all of
them, and the recurrence in a ``Scan``.

Behind a row's last token the step is zero, which leaves the state as it is: ``exp(0 · A) · h + 0 · B · x``.

ONNX's ``Scan`` over the tokens of a batch: one state goes in and out, and each token gives a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Norm
from ...compress.model.block_parts.mixer_anatomy import HeadedStateSpace, StateSpace
from .build import Build
from .graph_writer import Array
from .linear.linear import project, transposed_product
from .mlp_nodes import activate
from .norm import normalize
from .states import RowStates, convolved, known

Mixed = tuple[ir.Value, tuple[ir.Value, ...]]
_TIME = 1
_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def state_space(
    build: Build, value: ir.Value, part: StateSpace, past: tuple[ir.Value, ...], rows: RowStates
) -> Mixed:
    """What ``out_proj`` of Mamba reads of ``value [batch, seq, hidden]``, and the states after it."""
    graph, name = build.graph, part.module
    both = project(build, value, [part.in_proj], part.in_proj.name)
    x, z = graph.split(f"{name}.split", both, [part.out_proj.in_features] * 2)
    x, columns = convolved(build, x, part.convolution, past[0], rows)
    x = activate(build, x, part.activation, f"{name}.act")
    made = project(build, x, [part.x_proj], part.x_proj.name)
    step, b, c = graph.split(f"{name}.selected", made, [part.rank, part.size, part.size])
    norms = (part.step_norm, part.b_norm, part.c_norm)
    step, b, c = (
        one if norm is None else normalize(build, one, norm)
        for one, norm in zip((step, b, c), norms, strict=True)
    )
    wide = transposed_product(build, step, build.vector(f"{part.step}.weight"), part.step)
    step = _step(build, wide, f"{part.step}.bias", f"{name}.delta", rows)
    y, state = _scan_channels(build, part, known(build, past[1], rows), (step, x, b, c))
    y = _gated(build, _skipped(build, y, x, part.module, None), z, name)
    return y, (columns, state)


def _scan_channels(
    build: Build, part: StateSpace, state: ir.Value, sequences: tuple[ir.Value, ...]
) -> tuple[ir.Value, ir.Value]:
    """``h = exp(step · A) · h + step · x · B``, ``y = h · C`` of a state ``[batch, channels, size]``."""
    last, first = (build.graph.constant(f"scan.axis.{axis}", np.array([axis], np.int64)) for axis in (2, 1))
    wide, size = [part.convolution.channels], [part.size]
    body = Step(part.module, wide + size, {"step": wide, "x": wide, "b": size, "c": size})
    step, x, b, c = body.parts
    decay = body.node("Mul", "rate", [body.node("Unsqueeze", "wide", [step, last]), _decays(build, part)])
    kept = body.node("Mul", "kept", [body.node("Exp", "decay", [decay]), body.state])
    scaled = body.node("Unsqueeze", "scaled", [body.node("Mul", "input", [step, x]), last])
    added = body.node("Mul", "added", [scaled, body.node("Unsqueeze", "row", [b, first])])
    new = body.node("Add", "new", [kept, added])
    seen = body.node("MatMul", "seen", [new, body.node("Unsqueeze", "column", [c, last])])
    row = body.node("Squeeze", "y", [seen, last])
    return scan(build, f"{part.module}.scan", state, sequences, body.graph(new, row, wide))


def headed_state_space(
    build: Build, value: ir.Value, part: HeadedStateSpace, past: tuple[ir.Value, ...], rows: RowStates
) -> Mixed:
    """What ``out_proj`` of Mamba 2 reads of ``value [batch, seq, hidden]``, and the states after it."""
    graph, name, width = build.graph, part.module, part.out_proj.in_features
    made = project(build, value, [part.in_proj], part.in_proj.name)
    shared = part.groups * part.size
    z, mixed, step = graph.split(f"{name}.split", made, [width, width + 2 * shared, part.heads])
    mixed, columns = convolved(build, mixed, part.convolution, past[0], rows)
    mixed = activate(build, mixed, part.activation, f"{name}.act")
    x, b, c = graph.split(f"{name}.selected", mixed, [width, shared, shared])
    x = _heads(build, x, f"{name}.x", part.heads, part.head_dim)
    b, c = (_repeated(build, one, f"{name}.{label}", part) for one, label in ((b, "b"), (c, "c")))
    step = _step(build, step, f"{name}.dt_bias", f"{name}.delta", rows)
    if part.least > 0 or part.most < float("inf"):
        step = _clamped(build, step, part, rows)
    decay = graph.node(
        "Exp", f"{name}.decay", [graph.node("Mul", f"{name}.rate", [step, _decays(build, part)])]
    )
    last = graph.constant("scan.axis.3", np.array([3], np.int64))
    scaled = graph.node("Mul", f"{name}.input", [x, graph.node("Unsqueeze", f"{name}.step", [step, last])])
    sequences = (decay, scaled, b, c)
    y, state = _scan_heads(build, part, known_heads(build, past[1], rows), sequences)
    y = _skipped(build, y, x, part.module, [part.heads, 1])
    flat = graph.constant("heads.flat", np.array([0, 0, -1], np.int64))
    y = _gated(build, graph.node("Reshape", f"{name}.flat", [y, flat]), z, name)
    return _grouped_norm(build, y, part.norm, part), (columns, state)


def _scan_heads(
    build: Build, part: HeadedStateSpace, state: ir.Value, sequences: tuple[ir.Value, ...]
) -> tuple[ir.Value, ir.Value]:
    """``h = decay · h + x · B``, ``y = h · C`` of a state ``[batch, heads, head_dim, size]``."""
    two, three, both = (
        build.graph.constant(f"scan.axis.{'.'.join(map(str, axes))}", np.array(axes, np.int64))
        for axes in ((2,), (3,), (2, 3))
    )
    shared, inner = [part.heads, part.size], [part.heads, part.head_dim]
    parts = {"decay": [part.heads], "x": inner, "b": shared, "c": shared}
    body = Step(part.module, [*inner, part.size], parts)
    decay, x, b, c = body.parts
    kept = body.node("Mul", "kept", [body.state, body.node("Unsqueeze", "wide", [decay, both])])
    columns, row = body.node("Unsqueeze", "columns", [x, three]), body.node("Unsqueeze", "row", [b, two])
    new = body.node("Add", "new", [kept, body.node("Mul", "added", [columns, row])])
    seen = body.node("MatMul", "seen", [new, body.node("Unsqueeze", "column", [c, three])])
    row = body.node("Squeeze", "y", [seen, three])
    return scan(build, f"{part.module}.scan", state, sequences, body.graph(new, row, inner))


def known_heads(build: Build, value: ir.Value, rows: RowStates) -> ir.Value:
    """:func:`.states.known` of a state with one axis more."""
    last = build.graph.constant("scan.axis.3", np.array([3], np.int64))
    goes_on = build.graph.node("Unsqueeze", f"{value.name}.goes_on", [rows.goes_on, last])
    zero = build.graph.constant("states.zero", np.array(0, np.float32))
    return build.graph.node("Where", f"{value.name}.known", [goes_on, value, zero])


def _step(build: Build, value: ir.Value, bias: str, name: str, rows: RowStates) -> ir.Value:
    """``softplus(value + bias)`` of real tokens, zero of others."""
    graph = build.graph
    positive = graph.node(
        "Softplus", name, [graph.node("Add", f"{name}.biased", [value, build.vector(bias)])]
    )
    return graph.node("Mul", f"{name}.real", [positive, rows.real])


def _clamped(build: Build, step: ir.Value, part: HeadedStateSpace, rows: RowStates) -> ir.Value:
    graph, name = build.graph, f"{part.module}.clamped"
    low = graph.constant(f"step.least.{part.least}", np.array(part.least, np.float32))
    most = min(part.most, float(np.finfo(np.float32).max))
    high = graph.constant(f"step.most.{most}", np.array(most, np.float32))
    return graph.node("Mul", name, [graph.node("Clip", f"{name}.clip", [step, low, high]), rows.real])


def _decays(build: Build, part: StateSpace | HeadedStateSpace) -> ir.Value:
    """``A``: what a step is multiplied by in the exponent of the decay."""
    name, weights = f"{part.module}.A_log", build.weights

    def make() -> Array:
        return -np.exp(weights.tensor(name).numpy().astype(np.float32))

    return build.graph.weight(name, ir.DataType.FLOAT, weights.shape(name), make)


def _skipped(build: Build, y: ir.Value, x: ir.Value, module: str, shape: list[int] | None) -> ir.Value:
    """``y + D · x``, with D in another ``shape``."""
    graph, name, weights = build.graph, f"{module}.D", build.weights
    sizes = list(weights.shape(name)) if shape is None else shape

    def make() -> Array:
        return weights.tensor(name).numpy().astype(np.float32).reshape(sizes)

    through = graph.node("Mul", f"{name}.x", [x, graph.weight(name, ir.DataType.FLOAT, sizes, make)])
    return graph.node("Add", f"{name}.sum", [y, through])


def _gated(build: Build, y: ir.Value, z: ir.Value, name: str) -> ir.Value:
    return build.graph.node("Mul", f"{name}.gated", [y, activate(build, z, "silu", f"{name}.gate")])


def _heads(build: Build, value: ir.Value, name: str, heads: int, size: int) -> ir.Value:
    """``value [batch, seq, heads · size]`` as ``[batch, seq, heads, size]``."""
    shape = build.graph.constant(f"heads.{heads}.{size}", np.array([0, 0, heads, size], np.int64))
    return build.graph.node("Reshape", f"{name}.heads", [value, shape])


def _repeated(build: Build, value: ir.Value, name: str, part: HeadedStateSpace) -> ir.Value:
    """What the heads of a group share, once for each of them: ``[batch, seq, heads, size]``."""
    groups = _heads(build, value, name, part.groups, part.size)
    if part.groups == part.heads:
        return groups
    places = np.arange(part.heads, dtype=np.int64) // (part.heads // part.groups)
    index = build.graph.constant(f"groups.{part.heads}.{part.groups}", places)
    return build.graph.node("Gather", f"{name}.each", [groups, index], axis=2)


def _grouped_norm(build: Build, value: ir.Value, norm: Norm, part: HeadedStateSpace) -> ir.Value:
    """The norm of each group of channels by itself."""
    if part.groups == 1:
        return normalize(build, value, norm)
    graph, name = build.graph, norm.name
    size = part.out_proj.in_features // part.groups
    ones = graph.constant(f"ones.{size}", np.ones(size, np.float32))
    grouped = graph.node(
        "SimplifiedLayerNormalization",
        f"{name}.groups",
        [_heads(build, value, f"{name}.in", part.groups, size), ones],
        axis=-1,
        epsilon=norm.eps,
        stash_type=1,
    )
    flat = graph.constant("heads.flat", np.array([0, 0, -1], np.int64))
    whole = graph.node("Reshape", f"{name}.flat", [grouped, flat])
    return graph.node("Mul", name, [whole, build.vector(f"{name}.weight")])


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
