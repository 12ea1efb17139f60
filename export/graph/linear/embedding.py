"""Token embedding and head, in float or quantized; when they are tied, both read the same initializers: one,
or with edgepress's own operators one for the rows of frequent tokens and one for those of rare ones
(:mod:`edgepress.compress.numbers.table_scheme`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ....compress.numbers.table_scheme import TableScheme, rows_of
from ....errors import ShapeError
from ..build import Build
from .linear import transposed_product
from .nbits import Layout, layout_of, nbits_node, packed_weight
from .tiles import TileLayout, fits_float16, product_node, tile_layout, tile_weight


def embed(build: Build, ids: ir.Value) -> ir.Value:
    """Rows ``[…, hidden]`` of the token embedding for ``ids``."""
    module, scheme = build.anatomy.embedding, build.weights.embedding_scheme
    if scheme is None:
        return build.graph.node("Gather", module, [build.table(module), ids], axis=0)
    if build.tiles:
        return _rows(build, ids, _tile_tables(build, module, scheme), module)
    codes, scales, *zeros = _packed_table(build, module, scheme)
    return _gather(build, ids, [codes, scales, *zeros], table_layout(build, module, scheme), module)


def embed_scaled(build: Build, ids: ir.Value) -> ir.Value:
    """The same rows, times what the model multiplies them by."""
    graph, scale, value = build.graph, build.anatomy.embedding_scale, embed(build, ids)
    if scale == 1:
        return value
    factor = graph.constant("embedding.factor", np.array(scale, np.float32))
    return graph.node("Mul", "embedding.scale", [value, factor])


def head(build: Build, value: ir.Value) -> ir.Value:
    """Logits ``[…, vocab]``."""
    anatomy, module, scheme = build.anatomy, build.anatomy.embedding, build.weights.embedding_scheme
    if not anatomy.tied and anatomy.head is not None:
        module, scheme = anatomy.head, build.weights.head_scheme
    shape = build.weights.shape(f"{module}.weight")
    if scheme is None:
        table = build.table(module)
        _read_whole(build, table)
        product = transposed_product(build, value, table, "head")
    elif build.tiles:
        product = _products(build, value, _tile_tables(build, module, scheme))
    else:
        packed = _packed_table(build, module, scheme)
        for part in packed:
            _read_whole(build, part)
        product = nbits_node(
            build, value, packed, table_layout(build, module, scheme), "head", (shape[0], shape[1])
        )
    if anatomy.head is None or not build.weights.has(f"{anatomy.head}.bias"):
        return product
    return build.graph.node("Add", "head.add_bias", [product, build.vector(f"{anatomy.head}.bias")])


_TileTable = tuple[ir.Value, TileLayout]


def _tile_tables(build: Build, module: str, scheme: Scheme) -> list[_TileTable]:
    """The tiles of the embedding or head ``module``, those of the first rows first."""
    found, (rows, hidden) = [], build.weights.shape(f"{module}.weight")
    for index, (part, own) in enumerate(rows_of(scheme, rows)):
        read, name = _reader(build, module, index), f"{module}.rare" if index else module
        known = name in build.half_scales
        if not known:
            build.half_scales[name] = fits_float16(read()[0].scale)
        layout = tile_layout(own, part.stop - part.start, hidden, module, half_scales=build.half_scales[name])
        tiles = tile_weight(build, read, layout, name)
        if not known:
            build.graph.read_per_token[str(tiles.name)] = layout.nbytes // layout.rows
        found.append((tiles, layout))
    return found


def _reader(build: Build, module: str, index: int) -> Callable[[], Sequence[QTensor]]:
    return lambda: [build.weights.table_parts(module)[index]]


def _rows(build: Build, ids: ir.Value, tables: Sequence[_TileTable], module: str) -> ir.Value:
    """The row of each of ``ids``, which one of ``tables`` has."""
    graph = build.graph

    def looked_up(name: str, table: _TileTable, places: ir.Value) -> ir.Value:
        return graph.own("QuantizedRows", name, [table[0], places], 1, **table[1].attributes())[0]

    if len(tables) == 1:
        return looked_up(module, tables[0], ids)
    # Of each id one of both places is its own, and the other one that there is.
    start, last = (
        graph.constant(f"{module}.{name}", np.array(number, np.int64))
        for name, number in (("rare_from", tables[0][1].rows), ("last_frequent", tables[0][1].rows - 1))
    )
    zero = graph.constant(f"{module}.first_rare", np.array(0, np.int64))
    behind = graph.node("Sub", f"{module}.behind", [ids, start])
    frequent = graph.node("Min", f"{module}.frequent_ids", [ids, last])
    rare = graph.node("Max", f"{module}.rare_ids", [behind, zero])
    axis = graph.constant(f"{module}.last_axis", np.array([-1], np.int64))
    is_rare = graph.node("Greater", f"{module}.is_rare", [ids, last])
    return graph.node(
        "Where",
        module,
        [
            graph.node("Unsqueeze", f"{module}.is_rare_row", [is_rare, axis]),
            looked_up(f"{module}.rare_rows", tables[1], rare),
            looked_up(f"{module}.frequent_rows", tables[0], frequent),
        ],
    )


def _products(build: Build, value: ir.Value, tables: Sequence[_TileTable]) -> ir.Value:
    """Logits of all rows of ``tables``, in order."""
    for tiles, _ in tables:
        _read_whole(build, tiles)
    if len(tables) == 1:
        return product_node(build, value, *tables[0], "head")
    names = ("head.frequent", "head.rare")
    parts = [product_node(build, value, *table, name) for table, name in zip(tables, names, strict=True)]
    return build.graph.node("Concat", "head", parts, axis=-1)


def table_layout(build: Build, module: str, scheme: Scheme) -> Layout:
    """The storage of the embedding or head ``module``."""
    hidden = build.weights.shape(f"{module}.weight")[1]
    fix = "set `embedding: null` in the recipe to leave it in float, or choose a group size that divides"
    if scheme.activations:
        raise ShapeError(
            f"{module}: an embedding has no activations to quantize as {scheme.name} needs", fix=fix
        )
    layout = layout_of(scheme, hidden, module)
    if layout.blocks * layout.block != hidden:
        raise ShapeError(
            f"{module}: rows of {hidden} cannot be looked up in whole blocks as {scheme.name} needs", fix=fix
        )
    return layout


def _read_whole(build: Build, value: ir.Value) -> None:
    name = str(value.name)
    build.graph.read_per_token[name] = build.graph.nbytes[name]


def _packed_table(build: Build, module: str, scheme: Scheme) -> list[ir.Value]:
    layout = table_layout(build, module, scheme)
    note = layout.note(scheme)
    if note is not None:
        build.notes.add(note)
    if isinstance(scheme, TableScheme):
        build.notes.add(f"{scheme.name} is stored as {scheme.frequent.name} in all rows")
    rows = build.weights.shape(f"{module}.weight")[0]
    weights = build.weights
    known = f"{module}.codes" in build.graph.nbytes
    packed = packed_weight(build, lambda: [weights.quantized_table(module)], scheme, layout, module, rows)
    if not known:
        for part in packed:
            build.graph.read_per_token[str(part.name)] = build.graph.nbytes[str(part.name)] // rows
    return packed


def _gather(build: Build, ids: ir.Value, packed: list[ir.Value], layout: Layout, module: str) -> ir.Value:
    graph, blocks = build.graph, layout.blocks
    codes, scales, *zeros = packed
    attributes = {"bits": layout.bits, "block_size": layout.block, "gather_axis": 0}
    if zeros:
        # Packed zero points follow the rows, so the codes must be rows too.
        row = graph.constant(f"{module}.row", np.array([0, blocks * layout.blob], np.int64))
        codes = graph.node("Reshape", f"{module}.rows", [codes, row])
        return graph.contrib(
            "GatherBlockQuantized", module, [codes, ids, scales, *zeros], quantize_axis=1, **attributes
        )
    # The codes keep the blocks of MatMulNBits: a reshaped copy of the largest tensor of the model would be
    # folded into the session's memory. Only the scales are reshaped.
    column = graph.constant(f"{module}.column", np.array([0, blocks, 1], np.int64))
    scales = graph.node("Reshape", f"{module}.scale_column", [scales, column])
    found = graph.contrib(
        "GatherBlockQuantized", f"{module}.blocks", [codes, ids, scales], quantize_axis=2, **attributes
    )
    whole = graph.constant(f"{module}.whole", np.array([0, 0, blocks * layout.block], np.int64))
    return graph.node("Reshape", module, [found, whole])
