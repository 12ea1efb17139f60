"""From the pixels of an image to what the first block reads.

A text's vector of its tokens' values: that of its first token, of its last that is no padding, or the mean
of all; as it is or of length 1.

What one of two encoders makes of its last states: a vector that is compared with the other's.
"""

import numpy as np
import onnx_ir as ir
import torch

from ...compress.model.outer_anatomy import Patches, Tower
from ...compress.model.pooling import Mode
from .build import Build
from .graph_writer import Array, GraphWriter
from .mlp_nodes import activate
from .norm import normalize

_SMALLEST_NORM = np.float32(1e-12)


def patch_embeddings(build: Build, patches: Patches) -> ir.Value:
    """``[batch, tokens, hidden]`` of the graph's input ``pixel_values [batch, 3, height, width]``."""
    graph, hidden = build.graph, build.anatomy.hidden_size
    pixels = graph.input("pixel_values", ir.DataType.FLOAT, ["batch_size", 3, *patches.image])
    module, sides = patches.projection, [patches.side, patches.side]
    names = [f"{module}.{part}" for part in ("weight", "bias")]
    weights = [build.vector(name) for name in names if build.weights.has(name)]
    maps = graph.node("Conv", module, [pixels, *weights], kernel_shape=sides, strides=sides)
    rows = graph.constant("patches.rows", np.array([0, hidden, -1], np.int64))
    flat = graph.node("Reshape", "patches.flat", [maps, rows])
    value = graph.node("Transpose", "patches", [flat], perm=[0, 2, 1])
    if patches.class_token is not None:
        value = graph.node(
            "Concat", "patches.with_class", [_class_tokens(build, patches, pixels), value], axis=1
        )
    value = graph.node("Add", "patches.placed", [value, _positions(build, patches)])
    norm = build.anatomy.embedding_norm
    return value if norm is None else normalize(build, value, norm)


def _class_tokens(build: Build, patches: Patches, pixels: ir.Value) -> ir.Value:
    """The class token once for each image: ``[batch, 1, hidden]``."""
    graph, name, hidden = build.graph, str(patches.class_token), build.anatomy.hidden_size

    def row() -> Array:
        return build.weights.tensor(name).numpy().astype(np.float32).reshape(1, 1, hidden)

    token = graph.weight(name, ir.DataType.FLOAT, (1, 1, hidden), row)
    count = graph.node("Shape", "patches.batch", [pixels], start=0, end=1)
    one = graph.constant("patches.one", np.array([1, hidden], np.int64))
    return graph.node("Expand", name, [token, graph.node("Concat", f"{name}.shape", [count, one], axis=0)])


def _positions(build: Build, patches: Patches) -> ir.Value:
    """``[1, tokens, hidden]``, for images of another size than the model's own interpolated now."""
    hidden, name = build.anatomy.hidden_size, patches.positions

    def rows() -> Array:
        return at_grid(build.weights.tensor(name).float().reshape(-1, hidden), patches)[None].numpy()

    return build.graph.weight(name, ir.DataType.FLOAT, (1, patches.tokens, hidden), rows)


def at_grid(positions: torch.Tensor, patches: Patches) -> torch.Tensor:
    """``positions [tokens of the model's own grid, hidden]`` for the grid of the images that are read."""
    grid = tuple(size // patches.side for size in patches.image)
    if grid == patches.grid:
        return positions
    first = int(patches.class_token is not None)
    map_ = positions[first:].T.reshape(1, -1, *patches.grid)
    between = torch.nn.functional.interpolate(map_, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:first], between[0].flatten(1).T])


def pool(graph: GraphWriter, values: ir.Value, mask: ir.Value | None, mode: Mode) -> ir.Value:
    """``[batch, size]`` of ``values [batch, seq, size]`` by the tokens that ``mask [batch, seq]`` marks; of
    images all are.
    """
    if mode == "cls":
        first = graph.constant("pooling.first", np.array(0, np.int64))
        return graph.node("Gather", "pooling.cls", [values, first], axis=1)
    if mode == "last":
        assert mask is not None, "an image has no last token"
        mask = _last(graph, mask)
    return _mean(graph, values, mask)


def unit(graph: GraphWriter, vectors: ir.Value) -> ir.Value:
    """``vectors [batch, size]``, each of length 1."""
    length = graph.node("ReduceL2", "pooling.length", [vectors, tokens_axis(graph)], keepdims=1)
    floor = graph.constant("pooling.floor", np.array(_SMALLEST_NORM))
    return graph.node("Div", "pooling.unit", [vectors, graph.node("Max", "pooling.divisor", [length, floor])])


def _last(graph: GraphWriter, mask: ir.Value) -> ir.Value:
    """The last token of each row alone, on whatever side padding is: that behind which none is counted."""
    one = graph.constant("pooling.last.one", np.array(1, np.int64))
    counted = graph.node("CumSum", "pooling.last.counted", [mask, one], reverse=1)
    least = graph.node("Equal", "pooling.last.least", [counted, one])
    flags = graph.node("Cast", "pooling.last.flags", [least], to=ir.DataType.INT64)
    return graph.node("Mul", "pooling.last", [flags, mask])


def _mean(graph: GraphWriter, values: ir.Value, mask: ir.Value | None) -> ir.Value:
    if mask is None:
        return graph.node("ReduceMean", "pooling.mean", [values, tokens_axis(graph)], keepdims=0)
    weights, axis = graph.node("Cast", "pooling.mask", [mask], to=ir.DataType.FLOAT), tokens_axis(graph)
    row = graph.node("Unsqueeze", "pooling.row", [weights, axis])
    total = graph.node("Squeeze", "pooling.sum", [graph.node("MatMul", "pooling.total", [row, values]), axis])
    count = graph.node("ReduceSum", "pooling.count", [weights, axis], keepdims=1)
    one = graph.constant("pooling.one", np.array(1, np.float32))  # a row without tokens is zero, not NaN
    return graph.node("Div", "pooling.mean", [total, graph.node("Max", "pooling.tokens", [count, one])])


def tokens_axis(graph: GraphWriter) -> ir.Value:
    """Of values ``[batch, seq, …]``."""
    return graph.constant("pooling.axis", np.array([1], np.int64))


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
