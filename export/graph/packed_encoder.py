"""The graph of a BERT-like encoder in edgepress's own operators: the tokens of a batch are packed, one row
after the other without padding, and every node computes on ``[tokens, …]``.

Inputs and outputs are those of :mod:`.encoder_graph`; the states of padding are zero.
"""

from __future__ import annotations

import onnx_ir as ir

from ...compress.model.block_anatomy import BlockAnatomy, Linear, Mlp
from ...compress.model.pooling import Pooling
from .attention.attention import factor
from .block_nodes import mlp
from .build import Build
from .encoder_graph import INT64, TOKENS, check_encoder, encoder_inputs, write_outputs
from .linear.embedding import embed
from .linear.integer_tiles import ACTIVATIONS, Residual, integer_tile_product, integer_tiled
from .linear.linear import packed_bias, project, project_without_bias
from .norm import add_and_normalize, normalize, normalize_sum


def build_packed_encoder(build: Build, pooling: Pooling | None) -> None:
    """Write the whole graph of ``build.anatomy``, as :func:`.encoder_graph.build_encoder` does.

    Raises:
        CheckpointError: a part that this graph cannot express.
        ShapeError: a size that the operators cannot handle; names the layer.
    """
    check_encoder(build.anatomy)
    graph = build.graph
    ids, mask = graph.input("input_ids", INT64, TOKENS), graph.input("attention_mask", INT64, TOKENS)
    table, inputs = build.anatomy.token_type_embedding, [ids, mask]
    count = build.weights.shape(f"{table}.weight")[0] if table is not None else 0
    if "token_type_ids" in encoder_inputs(build.anatomy, count):
        inputs.append(graph.input("token_type_ids", INT64, TOKENS))
    offset = build.anatomy.position_offset
    tokens, positions, types, offsets = graph.own("PackTokens", "pack", inputs, 4, position_offset=offset)
    hidden = _embeddings(build, tokens, positions, types)
    for block in build.anatomy.blocks:
        hidden = _block(build, hidden, offsets, block)
    (states,) = graph.own("UnpackTokens", "unpack", [hidden, mask], 1)

    def pooled(first: bool, unit: bool) -> ir.Value:
        flags = {"first": int(first), "unit": int(unit)}
        return graph.own("PoolTokens", "pooling", [hidden, offsets], 1, **flags)[0]

    write_outputs(build, states, pooled, pooling)


def _embeddings(build: Build, tokens: ir.Value, positions: ir.Value, types: ir.Value) -> ir.Value:
    anatomy, graph = build.anatomy, build.graph
    assert anatomy.embedding_norm is not None
    table = build.vector(f"{anatomy.position_embedding}.weight")
    parts = [embed(build, tokens), graph.node("Gather", "positions", [table, positions], axis=0)]
    if anatomy.token_type_embedding is not None:
        table = build.vector(f"{anatomy.token_type_embedding}.weight")
        parts.append(graph.node("Gather", "token_types", [table, types], axis=0))
    return normalize_sum(build, parts, anatomy.embedding_norm)


def _block(build: Build, hidden: ir.Value, offsets: ir.Value, block: BlockAnatomy) -> ir.Value:
    part, name = block.attention, f"{block.prefix}.attention"
    rows = project(build, hidden, [part.q, part.k, part.v], f"{name}.qkv")
    (attended,) = build.graph.own(
        "EncoderAttention", name, [rows, offsets], 1, num_heads=part.heads, scale=factor(part)
    )
    middle = _project_and_normalize(build, attended, part.o, Residual(hidden, block.norm1))
    return _feed_forward(build, middle, block.mlp, f"{block.prefix}.mlp", Residual(middle, block.norm2))


def _feed_forward(build: Build, value: ir.Value, part: Mlp, name: str, residual: Residual) -> ir.Value:
    up = part.up.name
    if part.gate is not None or part.activation not in ACTIVATIONS or not integer_tiled(build, up):
        return _normalize(build, *mlp(build, value, part, name), residual)
    scheme, bias = build.weights.scheme(up), packed_bias(build, [part.up], up)
    assert scheme is not None
    inner = integer_tile_product(build, value, [part.up], scheme, up, bias, activation=part.activation)
    if part.inner_norm is not None:
        inner = normalize(build, inner, part.inner_norm)
    return _project_and_normalize(build, inner, part.down, residual)


def _project_and_normalize(build: Build, value: ir.Value, linear: Linear, residual: Residual) -> ir.Value:
    """The norm of ``linear(value)`` and the residual."""
    scheme = build.weights.scheme(linear.name)
    if scheme is None or not integer_tiled(build, linear.name) or residual.norm.kind == "rms":
        return _normalize(build, *project_without_bias(build, value, [linear], linear.name), residual)
    bias = packed_bias(build, [linear], linear.name)
    return integer_tile_product(build, value, [linear], scheme, linear.name, bias, residual=residual)


def _normalize(build: Build, value: ir.Value, bias: ir.Value | None, residual: Residual) -> ir.Value:
    if residual.norm.kind == "rms":
        return add_and_normalize(build, value, residual.value, residual.norm, bias)[0]
    return normalize_sum(build, [value, residual.value, *([] if bias is None else [bias])], residual.norm)
