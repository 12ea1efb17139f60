"""The graph of a BERT-like encoder: post-norm blocks, attention in both directions, and a sentence embedding
or the logits of a classifier.

Biases are handed to the node that follows where it can add them on its way (``BiasGelu``, the sum before a
norm). Attention is ONNX's own operator: on x86 it takes 0.7 to 0.9 of the time of ``MultiHeadAttention``,
which makes its mask again in every layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...compress.model.anatomy import Anatomy, Classifier
from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ...compress.model.graph_limits import require_graph
from ...compress.model.pooling import Pooling
from .attention.attention import factor
from .attention.distance_bias import biased_by_distance
from .block_nodes import activate, mlp
from .build import Build
from .graph_writer import GraphWriter
from .linear.embedding import embed
from .linear.linear import project_apart, project_without_bias, transposed_product
from .norm import add_and_normalize, normalize

_SMALLEST_NORM = np.float32(1e-12)
LOGITS = "logits"
INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT
TOKENS: list[int | str] = ["batch_size", "sequence_length"]
PADDING_SCORE = np.finfo(np.float32).min / 2


def encoder_inputs(anatomy: Anatomy, token_types: int) -> list[str]:
    """Names of the graph's inputs; a table of a single token type needs no ids."""
    both = ["input_ids", "attention_mask"]
    return [*both, "token_type_ids"] if anatomy.token_type_embedding and token_types > 1 else both


def build_encoder(build: Build, pooling: Pooling | None) -> None:
    """Write the whole graph of ``build.anatomy``, with the output ``logits`` of a classifier of texts or
    tokens, or ``sentence_embedding`` when there is a ``pooling``.

    Raises:
        CheckpointError, ShapeError, UnknownName: as :func:`require_graph`.
        ShapeError: a size that the kernels cannot handle; names the layer.
    """
    require_graph(build.anatomy)
    graph = build.graph
    ids = graph.input("input_ids", INT64, TOKENS)
    mask = graph.input("attention_mask", INT64, TOKENS)
    hidden = _embeddings(build, ids)
    scores_mask = biased_by_distance(build, _scores_mask(build, mask))
    for block in build.anatomy.blocks:
        hidden = _block(build, hidden, scores_mask, block)

    def pooled(first: bool, unit: bool) -> ir.Value:
        chosen = _first(graph, hidden) if first else _masked_mean(graph, hidden, mask)
        return _unit(graph, chosen) if unit else chosen

    write_outputs(build, hidden, pooled, pooling)


def write_outputs(
    build: Build, states: ir.Value, pooled: Callable[[bool, bool], ir.Value], pooling: Pooling | None
) -> None:
    """The graph's outputs: the states ``[batch, seq, hidden]``, and the logits of a classifier or the vectors
    of a ``pooling``. ``pooled(first, unit)`` is ``[batch, hidden]``: the state of each text's first token or
    their mean, as it is or of length 1.
    """
    graph, hidden_size, head = build.graph, build.anatomy.hidden_size, build.anatomy.classifier
    graph.output(states, "last_hidden_state", FLOAT, [*TOKENS, hidden_size])
    if head is not None and head.by_token:
        graph.output(token_logits(build, states, head), LOGITS, FLOAT, [*TOKENS, len(head.labels)])
    elif head is not None:
        logits = label_logits(build, pooled(True, False), head)
        graph.output(logits, LOGITS, FLOAT, ["batch_size", len(head.labels)])
    elif pooling is not None and pooling.mode is not None:
        vectors = pooled(pooling.mode == "cls", pooling.normalize)
        graph.output(vectors, "sentence_embedding", FLOAT, ["batch_size", hidden_size])


def _embeddings(build: Build, ids: ir.Value) -> ir.Value:
    return widened(build, _normed_embeddings(build, ids))


def widened(build: Build, embeddings: ir.Value) -> ir.Value:
    """``embeddings``, projected to the hidden size where they are of another."""
    module = build.anatomy.embedding_projection
    if module is None:
        return embeddings
    bias = [build.vector(f"{module}.bias")] if build.weights.has(f"{module}.bias") else []
    wide = transposed_product(build, embeddings, build.vector(f"{module}.weight"), module)
    return build.graph.node("Add", f"{module}.add_bias", [wide, *bias]) if bias else wide


def _normed_embeddings(build: Build, ids: ir.Value) -> ir.Value:
    anatomy, graph = build.anatomy, build.graph
    assert anatomy.embedding_norm is not None
    position_rows = graph.node(
        "Gather", "positions", [_position_table(build), _positions(build, ids)], axis=0
    )
    summed = graph.node("Add", "embeddings.sum", [embed(build, ids), position_rows])
    if anatomy.token_type_embedding is None:
        return normalize(build, summed, anatomy.embedding_norm)
    table = build.vector(f"{anatomy.token_type_embedding}.weight")
    token_types = build.weights.shape(f"{anatomy.token_type_embedding}.weight")[0]
    if "token_type_ids" in encoder_inputs(anatomy, token_types):
        types = graph.input("token_type_ids", INT64, TOKENS)
    else:
        types = graph.constant("token_types.only", np.zeros((1, 1), np.int64))
    rows = graph.node("Gather", "token_types", [table, types], axis=0)
    return normalize(build, graph.node("Add", "embeddings.typed", [summed, rows]), anatomy.embedding_norm)


def _position_table(build: Build) -> ir.Value:
    return build.vector(f"{build.anatomy.position_embedding}.weight")


def _positions(build: Build, ids: ir.Value) -> ir.Value:
    """Rows of the position table: ``[seq]``, or ``[batch, seq]`` where padding matters (RoBERTa)."""
    graph, offset = build.graph, build.anatomy.position_offset
    if offset == 0:
        one, zero = (
            graph.constant("positions.one", np.array(1)),
            graph.constant("positions.zero", np.array(0)),
        )
        width = graph.node(
            "Gather", "positions.width", [graph.node("Shape", "positions.shape", [ids]), one], axis=0
        )
        return graph.node("Range", "positions.range", [zero, width, one])
    # RoBERTa counts the tokens that are not padding; padding itself reads the row before the first position.
    padding = graph.constant("positions.padding", np.array(offset - 1, np.int64))
    row = graph.constant("positions.row", np.array(1, np.int64))
    is_padding = graph.node("Equal", "positions.is_padding", [ids, padding])
    real = graph.node("Cast", "positions.real", [graph.node("Not", "positions.not", [is_padding])], to=INT64)
    count = graph.node("CumSum", "positions.count", [real, row])
    return graph.node(
        "Add", "positions.rows", [graph.node("Mul", "positions.counted", [count, real]), padding]
    )


def _block(build: Build, hidden: ir.Value, mask: ir.Value, block: BlockAnatomy) -> ir.Value:
    attended = _attention(build, hidden, mask, block.attention, f"{block.prefix}.attention")
    out, bias = project_without_bias(build, attended, [block.attention.o], block.attention.o.name)
    middle, _ = add_and_normalize(build, out, hidden, block.norm1, bias)
    out, bias = mlp(build, middle, block.mlp, f"{block.prefix}.mlp")
    return add_and_normalize(build, out, middle, block.norm2, bias)[0]


def _scores_mask(build: Build, mask: ir.Value) -> ir.Value:
    """What is added to attention scores, ``[batch, 1, seq, seq]``: nothing for tokens, very much less for
    padding.

    It is finite, so that a row without any token gives numbers, which the pooling then leaves out.
    """
    graph = build.graph
    real = graph.node("Cast", "mask.float", [mask], to=FLOAT)
    one, least = (
        graph.constant("mask.one", np.array(1, np.float32)),
        graph.constant("mask.padding", np.array(PADDING_SCORE, np.float32)),
    )
    absent = graph.node("Mul", "mask.scores", [graph.node("Sub", "mask.absent", [one, real]), least])
    axes = graph.constant("mask.axes", np.array([1, 2], np.int64))
    keys = graph.node("Unsqueeze", "mask.keys", [absent, axes])
    length = graph.node("Shape", "mask.length", [mask], start=1, end=2)
    column = graph.constant("mask.column", np.array([1], np.int64))
    square = graph.node("Concat", "mask.square", [length, column], axis=0)
    return graph.node("Expand", "mask.pairs", [keys, square])


def _attention(build: Build, hidden: ir.Value, mask: ir.Value, part: Attention, name: str) -> ir.Value:
    query, key, value = project_apart(build, hidden, [part.q, part.k, part.v], f"{name}.qkv", f"{name}.split")
    return build.graph.node(
        "Attention",
        name,
        [query, key, value, mask],
        q_num_heads=part.heads,
        kv_num_heads=part.kv_heads,
        scale=factor(part),
    )


def _first(graph: GraphWriter, hidden: ir.Value) -> ir.Value:
    return graph.node(
        "Gather", "pooling.cls", [hidden, graph.constant("pooling.first", np.array(0, np.int64))], axis=1
    )


def _masked_mean(graph: GraphWriter, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    weights, axis = graph.node("Cast", "pooling.mask", [mask], to=ir.DataType.FLOAT), _tokens_axis(graph)
    row = graph.node("Unsqueeze", "pooling.row", [weights, axis])
    total = graph.node("Squeeze", "pooling.sum", [graph.node("MatMul", "pooling.total", [row, hidden]), axis])
    count = graph.node("ReduceSum", "pooling.count", [weights, axis], keepdims=1)
    one = graph.constant("pooling.one", np.array(1, np.float32))  # a row without tokens is zero, not NaN
    return graph.node("Div", "pooling.mean", [total, graph.node("Max", "pooling.tokens", [count, one])])


def _unit(graph: GraphWriter, vectors: ir.Value) -> ir.Value:
    length = graph.node("ReduceL2", "pooling.length", [vectors, _tokens_axis(graph)], keepdims=1)
    floor = graph.constant("pooling.floor", np.array(_SMALLEST_NORM))
    return graph.node("Div", "pooling.unit", [vectors, graph.node("Max", "pooling.divisor", [length, floor])])


def _tokens_axis(graph: GraphWriter) -> ir.Value:
    return graph.constant("pooling.axis", np.array([1], np.int64))


def label_logits(build: Build, first: ir.Value, head: Classifier) -> ir.Value:
    """``[batch, labels]`` from the states ``[batch, hidden]`` of the texts' first tokens."""
    assert head.dense is not None
    dense = _linear(build, first, head.dense)
    middle = activate(build, dense, head.activation, "classifier.activation")
    return _linear(build, middle, head.out)


def token_logits(build: Build, states: ir.Value, head: Classifier) -> ir.Value:
    """``[batch, seq, labels]`` from the ``states [batch, seq, hidden]``."""
    logits = transposed_product(build, states, build.vector(f"{head.out}.weight"), head.out)
    if not build.weights.has(f"{head.out}.bias"):
        return logits
    return build.graph.node("Add", f"{head.out}.add_bias", [logits, build.vector(f"{head.out}.bias")])


def _linear(build: Build, value: ir.Value, module: str) -> ir.Value:
    parts = [f"{module}.{part}" for part in ("weight", "bias")]
    stored = [build.vector(name) for name in parts if build.weights.has(name)]
    return build.graph.node("Gemm", module, [value, *stored], transB=1)
