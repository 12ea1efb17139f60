"""Token embedding and head, in float or quantized; when they are tied, both read one initializer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....compress.numbers.scheme import Scheme
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
        tiles, held = _tile_table(build, module, scheme)
        return build.graph.own("QuantizedRows", module, [tiles, ids], 1, **held.attributes())[0]
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
        tiles, held = _tile_table(build, module, scheme)
        _read_whole(build, tiles)
        product = product_node(build, value, tiles, held, "head")
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


def _tile_table(build: Build, module: str, scheme: Scheme) -> tuple[ir.Value, TileLayout]:
    rows, hidden = build.weights.shape(f"{module}.weight")
    weights = build.weights
    half = fits_float16(weights.quantized_table(module).scale)
    layout = tile_layout(scheme, rows, hidden, module, half_scales=half)
    known = f"{module}.tiles" in build.graph.nbytes
    tiles = tile_weight(build, lambda: [weights.quantized_table(module)], layout, module)
    if not known:
        build.graph.read_per_token[str(tiles.name)] = layout.nbytes // rows
    return tiles, layout


def table_layout(build: Build, module: str, scheme: Scheme) -> Layout:
    """The storage of the embedding or head ``module``.

    Raises:
        ShapeError: a scheme with quantized activations, or blocks that do not divide the hidden size.
    """
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
