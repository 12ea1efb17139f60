"""What one of two encoders makes of its last states: a vector that is compared with the other's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.model.outer_anatomy import Tower
from .build import Build
from .graph_writer import Array
from .mlp_nodes import activate
from .norm import normalize


def vector_size(build: Build, tower: Tower) -> int:
    """Numbers of a vector."""
    name = f"{tower.projection}.weight"
    return build.anatomy.hidden_size if tower.projection is None else build.weights.shape(name)[0]


def tower_nodes(build: Build, states: ir.Value, ids: ir.Value | None, tower: Tower) -> ir.Value:
    """``[batch, size]`` of the ``states [batch, seq, hidden]`` of the tokens ``ids``; None for images."""
    if tower.probe is not None:
        return _probed(build, states, tower, tower.probe)
    value = _pooled(build, states, ids, tower)
    if tower.norm is not None:
        value = normalize(build, value, tower.norm)
    return value if tower.projection is None else _gemm(build, value, tower.projection)


def _pooled(build: Build, states: ir.Value, ids: ir.Value | None, tower: Tower) -> ir.Value:
    graph = build.graph
    if tower.pooling != "end" or ids is None:
        place = graph.constant("tower.place", np.array(-1 if tower.pooling == "last" else 0, np.int64))
        return graph.node("Gather", "tower.pooled", [states, place], axis=1)
    if tower.end is None:
        ends = graph.node("ArgMax", "tower.ends", [ids], axis=1, keepdims=1)
    else:
        end = graph.constant("tower.end", np.array(tower.end, np.int64))
        found = graph.node("Equal", "tower.found", [ids, end])
        marks = graph.node("Cast", "tower.marks", [found], to=ir.DataType.INT64)
        ends = graph.node("ArgMax", "tower.ends", [marks], axis=1, keepdims=1)
    return graph.node("GatherND", "tower.pooled", [states, ends], batch_dims=1)


def _probed(build: Build, states: ir.Value, tower: Tower, module: str) -> ir.Value:
    """What the query attends to, with a norm and an MLP behind it."""
    graph, hidden = build.graph, build.anatomy.hidden_size
    query = _repeated(build, states, _query(build, module), module)
    key, value = (_part(build, states, module, part) for part in ("k", "v"))
    attended = graph.node(
        "Attention",
        f"{module}.attention",
        [query, key, value],
        q_num_heads=tower.heads,
        kv_num_heads=tower.heads,
    )
    flat = graph.constant("tower.flat", np.array([-1, hidden], np.int64))
    rows = graph.node("Reshape", f"{module}.rows", [attended, flat])
    found = _gemm(build, rows, f"{module}.attention.out_proj")
    assert tower.norm is not None
    normed = normalize(build, found, tower.norm)
    wide = _gemm(build, normed, f"{module}.mlp.fc1")
    inner = activate(build, wide, build.anatomy.blocks[0].mlp.activation, f"{module}.act")
    return graph.node("Add", f"{module}.sum", [found, _gemm(build, inner, f"{module}.mlp.fc2")])


def _query(build: Build, module: str) -> ir.Value:
    """The query of all images, which is projected now: ``[1, 1, hidden]``."""
    hidden, weights = build.anatomy.hidden_size, build.weights

    def make() -> Array:
        weight = weights.tensor(f"{module}.attention.in_proj_weight")[:hidden]
        bias = weights.tensor(f"{module}.attention.in_proj_bias")[:hidden]
        probe = weights.tensor(f"{module}.probe").float().reshape(1, hidden)
        return (probe @ weight.float().T + bias.float()).numpy().reshape(1, 1, hidden)

    return build.graph.weight(f"{module}.query", ir.DataType.FLOAT, (1, 1, hidden), make)


def _repeated(build: Build, states: ir.Value, query: ir.Value, module: str) -> ir.Value:
    """``query`` for each image: ``[batch, 1, hidden]``."""
    graph = build.graph
    count = graph.node("Shape", f"{module}.batch", [states], start=0, end=1)
    rest = graph.constant("tower.rest", np.array([1, build.anatomy.hidden_size], np.int64))
    shape = graph.node("Concat", f"{module}.shape", [count, rest], axis=0)
    return graph.node("Expand", f"{module}.queries", [query, shape])


def _part(build: Build, states: ir.Value, module: str, part: str) -> ir.Value:
    """Keys or values ``[batch, seq, hidden]``: the second and third parts of one matrix."""
    hidden, weights, graph = build.anatomy.hidden_size, build.weights, build.graph
    start = hidden * {"k": 1, "v": 2}[part]
    rows = slice(start, start + hidden)

    def matrix() -> Array:
        return weights.tensor(f"{module}.attention.in_proj_weight")[rows].float().T.numpy()

    def vector() -> Array:
        return weights.tensor(f"{module}.attention.in_proj_bias")[rows].float().numpy()

    weight = graph.weight(f"{module}.{part}.weight", ir.DataType.FLOAT, (hidden, hidden), matrix)
    bias = graph.weight(f"{module}.{part}.bias", ir.DataType.FLOAT, (hidden,), vector)
    return graph.node(
        "Add", f"{module}.{part}", [graph.node("MatMul", f"{module}.{part}.product", [states, weight]), bias]
    )


def _gemm(build: Build, value: ir.Value, module: str) -> ir.Value:
    """``value [rows, in]`` through the float linear ``module``."""
    names = [f"{module}.{part}" for part in ("weight", "bias")]
    parts = [build.vector(name) for name in names if build.weights.has(name)]
    return build.graph.node("Gemm", module, [value, *parts], transB=1)
