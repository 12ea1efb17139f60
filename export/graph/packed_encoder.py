"""The graph of a BERT-like encoder in edgepress's own operators: the tokens of a batch are packed, one row
after the other without padding, and every node computes on ``[tokens, …]``.

Inputs and outputs are those of :mod:`.encoder_graph`; the states of padding are zero.
"""

import numpy as np
import onnx_ir as ir

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import BlockAnatomy, Linear, Mlp
from ...compress.model.graph_limits import require_graph
from ...compress.model.pooling import Mode, Pooling
from ...compress.numbers.scheme import Scheme
from .attention.attention import factor
from .build import BEHIND, ENTRANCE, Build
from .encoder_graph import INT64, TOKENS, encoder_inputs, widened, write_outputs
from .graph_writer import Array
from .linear.embedding import embed
from .linear.integer_tiles import ACTIVATIONS, Residual, integer_tile_product, integer_tiled, unsigned
from .linear.linear import packed_bias, project, project_without_bias
from .mlp_nodes import mlp
from .norm import add_and_normalize, layer_norm_parts, normalize, normalize_sum


def packs_tokens(anatomy: Anatomy, pooling: Pooling | None) -> bool:
    """Whether the operators for packed tokens carry such a model: they know neither distances nor ropes,
    nor norms before the sums, nor a text's last token; images have nothing to pack.
    """
    known = not (anatomy.position_biases or anatomy.relative or anatomy.ropes() or anatomy.patches)
    last = pooling is not None and pooling.mode == "last"
    return known and not last and anatomy.tower is None


def build_packed_encoder(build: Build, pooling: Pooling | None) -> None:
    """Write the whole graph of ``build.anatomy``, as :func:`.encoder_graph.build_encoder` does."""
    require_graph(build.anatomy)
    graph = build.graph
    ids, mask = graph.input("input_ids", INT64, TOKENS), graph.input("attention_mask", INT64, TOKENS)
    table, inputs = build.anatomy.token_type_embedding, [ids, mask]
    count = build.weights.shape(f"{table}.weight")[0] if table is not None else 0
    if "token_type_ids" in encoder_inputs(build.anatomy, count):
        inputs.append(graph.input("token_type_ids", INT64, TOKENS))
    offset = build.anatomy.position_offset
    tokens, positions, types, offsets = graph.own("PackTokens", "pack", inputs, 4, position_offset=offset)
    hidden = widened(build, _embeddings(build, tokens, positions, types))
    build.end_part(ENTRANCE, [], [hidden])
    for block in build.anatomy.blocks:
        entered = hidden
        for _ in graph.repeated(block.repeats):
            hidden = _block(build, hidden, offsets, block)
        build.end_part(block.prefix, [entered], [hidden])
    (states,) = graph.own("UnpackTokens", "unpack", [hidden, mask], 1)

    def pooled(_states: ir.Value, mode: Mode, normed: bool) -> ir.Value:
        flags = {"first": int(mode == "cls"), "unit": int(normed)}
        return graph.own("PoolTokens", "pooling", [hidden, offsets], 1, **flags)[0]

    write_outputs(build, states, pooled, pooling)
    build.end_part(BEHIND, [hidden], graph.made)


def _embeddings(build: Build, tokens: ir.Value, positions: ir.Value, types: ir.Value) -> ir.Value:
    """The norm of the sum of token, position and type embeddings ``[tokens, hidden]``."""
    anatomy, graph, scheme = build.anatomy, build.graph, build.weights.embedding_scheme
    assert anatomy.embedding_norm is not None
    table = build.vector(f"{anatomy.position_embedding}.weight")
    kinds = None
    if anatomy.token_type_embedding is not None:
        kinds = build.vector(f"{anatomy.token_type_embedding}.weight")
    if scheme is not None and scheme.bits == 8 and not scheme.activations and scheme.format == "int":
        codes, scales, zeros = _byte_table(build, scheme)
        norm = layer_norm_parts(build, anatomy.embedding_norm)
        inputs = [*norm, tokens, positions, types, codes, scales, table, kinds, zeros]
        while inputs[-1] is None:
            inputs.pop()
        epsilon = float(anatomy.embedding_norm.eps)
        return graph.own("EncoderEmbeddings", anatomy.embedding_norm.name, inputs, 1, epsilon=epsilon)[0]
    parts = [embed(build, tokens), graph.node("Gather", "positions", [table, positions], axis=0)]
    if kinds is not None:
        parts.append(graph.node("Gather", "token_types", [kinds, types], axis=0))
    return normalize_sum(build, parts, anatomy.embedding_norm)


def _byte_table(build: Build, scheme: Scheme) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """The token embedding: codes ``[vocab, hidden]``, scales ``[vocab, groups]``, and zero points or None."""
    module, weights, graph = build.anatomy.embedding, build.weights, build.graph
    rows, hidden = weights.shape(f"{module}.weight")
    groups = hidden // (scheme.group_size or hidden)

    def floats() -> Array:
        return weights.quantized_table(module).scale.numpy().astype(np.float32)

    def codes() -> Array:
        return unsigned(weights.quantized_table(module).codes.numpy())

    def points() -> Array:
        zero_point = weights.quantized_table(module).zero_point
        assert zero_point is not None
        return unsigned(zero_point.numpy())

    bytes_type, sizes = ir.DataType.UINT8, [rows, groups]
    stored = graph.weight(f"{module}.bytes", bytes_type, [rows, hidden], codes, read_per_token=hidden)
    scales = graph.weight(f"{module}.scales", ir.DataType.FLOAT, sizes, floats, read_per_token=4 * groups)
    if scheme.symmetric:
        return stored, scales, None
    return (
        stored,
        scales,
        graph.weight(f"{module}.zero_points", bytes_type, sizes, points, read_per_token=groups),
    )


def _block(build: Build, hidden: ir.Value, offsets: ir.Value, block: BlockAnatomy) -> ir.Value:
    part, name = block.attention, f"{block.prefix}.attention"
    rows = project(build, hidden, [part.q, part.k, part.v], f"{name}.qkv")
    exact = int(not integer_tiled(build, part.q.name))
    (attended,) = build.graph.own(
        "EncoderAttention", name, [rows, offsets], 1, num_heads=part.heads, scale=factor(part), exact=exact
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
