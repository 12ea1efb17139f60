"""The graph of an encoder: attention in both directions, and a sentence embedding or the logits of a
classifier.

Biases are handed to the node that follows where it can add them on its way (``BiasGelu``, the sum before a
norm).
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...compress.model.anatomy import Anatomy, Classifier
from ...compress.model.block_anatomy import BlockAnatomy
from ...compress.model.graph_limits import require_graph
from ...compress.model.pooling import Mode, Pooling
from .attention.encoder_attention import EncoderInputs, encoder_attention
from .attention.encoder_attention import encoder_inputs as attention_inputs
from .block_nodes import finished
from .build import BEHIND, ENTRANCE, Build
from .encoder_ends import patch_embeddings, pool, tokens_axis, tower_nodes, unit, vector_size
from .linear.embedding import embed_scaled
from .linear.linear import project_without_bias, transposed_product
from .mlp_nodes import activate, mlp
from .norm import add_and_normalize, normalize

LOGITS = "logits"
INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT
TOKENS: list[int | str] = ["batch_size", "sequence_length"]


def encoder_inputs(anatomy: Anatomy, token_types: int) -> list[str]:
    """Names of the graph's inputs; a table of a single token type needs no ids."""
    both = ["input_ids", "attention_mask"]
    return [*both, "token_type_ids"] if anatomy.token_type_embedding and token_types > 1 else both


# Of values ``[batch, seq, size]``, which of each text are meant, and whether length 1 is.
Pooled = Callable[[ir.Value, Mode, bool], ir.Value]


def build_encoder(build: Build, pooling: Pooling | None) -> None:
    """Write the whole graph of ``build.anatomy``, with the output ``logits`` of a classifier of texts, tokens
    or spans, or ``sentence_embedding`` when there is a ``pooling``.
    """
    require_graph(build.anatomy)
    graph, ids, mask, tower = build.graph, None, None, build.anatomy.tower
    if build.anatomy.patches is not None:
        hidden = patch_embeddings(build, build.anatomy.patches)
    else:
        ids = graph.input("input_ids", INT64, TOKENS)
        if tower is None or not tower.filled:
            mask = graph.input("attention_mask", INT64, TOKENS)
        hidden = _embeddings(build, ids)
    build.end_part(ENTRANCE, [], [hidden])
    shared = attention_inputs(build, mask)
    for block in build.anatomy.blocks:
        entered = hidden
        for _ in graph.repeated(block.repeats):
            hidden = encoder_block(build, hidden, shared, block)
        build.end_part(block.prefix, [entered], [hidden])
    left = hidden
    if build.anatomy.final_norm is not None:
        hidden = normalize(build, hidden, build.anatomy.final_norm)

    def pooled(values: ir.Value, mode: Mode, normed: bool) -> ir.Value:
        chosen = pool(graph, values, mask, mode)
        return unit(graph, chosen) if normed else chosen

    if tower is not None:
        write_states(build, hidden)
        vectors = unit(graph, tower_nodes(build, hidden, ids, tower))
        graph.output(vectors, "sentence_embedding", FLOAT, ["batch_size", vector_size(build, tower)])
    else:
        write_outputs(build, hidden, pooled, pooling)
    build.end_part(BEHIND, [left], graph.made)


def write_states(build: Build, states: ir.Value) -> None:
    """The output of the ``states [batch, seq, hidden]``."""
    patches = build.anatomy.patches
    tokens: list[int | str] = TOKENS if patches is None else ["batch_size", patches.tokens]
    build.graph.output(states, "last_hidden_state", FLOAT, [*tokens, build.anatomy.hidden_size])


def write_outputs(build: Build, states: ir.Value, pooled: Pooled, pooling: Pooling | None) -> None:
    """The graph's outputs: the states ``[batch, seq, hidden]``, and the logits of a classifier or the vectors
    of a ``pooling``. ``pooled(values, mode, normed)`` is ``[batch, size]`` of ``values [batch, seq, size]``,
    of length 1 where ``normed``.
    """
    graph, hidden_size, head = build.graph, build.anatomy.hidden_size, build.anatomy.classifier
    write_states(build, states)
    if head is not None and head.by_token:
        graph.output(token_logits(build, states, head), LOGITS, FLOAT, [*TOKENS, len(head.labels)])
    elif head is not None:
        logits = label_logits(build, states, pooled, head)
        graph.output(logits, LOGITS, FLOAT, ["batch_size", len(head.labels)])
    elif pooling is not None and pooling.mode is not None:
        assert pooling.mode != "tower", "the nodes of a tower give its vectors"
        vectors = pooled(states, pooling.mode, pooling.normalize)
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
    rows = None
    if anatomy.position_embedding is not None:
        table = build.vector(f"{anatomy.position_embedding}.weight")
        rows = graph.node("Gather", "positions", [table, _positions(build, ids)], axis=0)
    value = embed_scaled(build, ids)
    if rows is not None:
        value = graph.node("Add", "embeddings.sum", [value, rows])
    if anatomy.token_type_embedding is not None:
        value = graph.node(
            "Add", "embeddings.typed", [value, _token_types(build, anatomy.token_type_embedding)]
        )
    return value if anatomy.embedding_norm is None else normalize(build, value, anatomy.embedding_norm)


def _token_types(build: Build, module: str) -> ir.Value:
    graph, table = build.graph, build.vector(f"{module}.weight")
    if "token_type_ids" in encoder_inputs(build.anatomy, build.weights.shape(f"{module}.weight")[0]):
        types = graph.input("token_type_ids", INT64, TOKENS)
    else:
        types = graph.constant("token_types.only", np.zeros((1, 1), np.int64))
    return graph.node("Gather", "token_types", [table, types], axis=0)


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


def encoder_block(build: Build, hidden: ir.Value, shared: EncoderInputs, block: BlockAnatomy) -> ir.Value:
    """What leaves ``block`` where ``hidden [batch, seq, hidden]`` enters it."""
    name, entry = f"{block.prefix}.attention", block.entry_norm
    read = hidden if entry is None else normalize(build, hidden, entry)
    attended = encoder_attention(build, read, shared, block.attention, name)
    out, bias = project_without_bias(build, attended, [block.attention.o], block.attention.o.name)
    out, bias = _scaled(build, out, bias, block.attention_scale)
    factor = block.residual_scale
    out, bias = finished(build, out, bias, block.attention.o.name, block.attention_norm, factor)
    if block.order == "post":
        middle, _ = add_and_normalize(build, out, hidden, block.norm1, bias)
        out, bias = mlp(build, middle, block.mlp, f"{block.prefix}.mlp")
        return add_and_normalize(build, out, middle, block.norm2, bias)[0]
    normed, middle = add_and_normalize(build, out, hidden, block.norm2, bias)
    out, bias = mlp(build, normed, block.mlp, f"{block.prefix}.mlp")
    out, bias = _scaled(build, out, bias, block.mlp_scale)
    out, bias = finished(build, out, bias, block.mlp.down.name, block.mlp_norm, factor)
    parts = [middle, out, *([] if bias is None else [bias])]
    return build.graph.node("Sum", f"{block.prefix}.sum", parts)


def _scaled(
    build: Build, out: ir.Value, bias: ir.Value | None, scale: str | None
) -> tuple[ir.Value, ir.Value | None]:
    """``scale · (out + bias)``, and what bias is still to be added."""
    if scale is None:
        return out, bias
    if bias is not None:
        out = build.graph.node("Add", f"{scale}.biased", [out, bias])
    return build.graph.node("Mul", f"{scale}.scaled", [out, build.vector(scale)]), None


def label_logits(build: Build, states: ir.Value, pooled: Pooled, head: Classifier) -> ir.Value:
    """``[batch, labels]`` from the ``states [batch, seq, hidden]``."""
    if head.pooling == "first_and_mean":
        start, end = (build.graph.constant(f"pooling.{at}", np.array([at], np.int64)) for at in (1, 1 << 30))
        others = build.graph.node("Slice", "pooling.others", [states, start, end, tokens_axis(build.graph)])
        both = [pooled(states, "cls", False), pooled(others, "mean", False)]
        middle = build.graph.node("Concat", "pooling.both", both, axis=-1)
    elif head.pooling == "late":  # the last linear of a mean is the mean of its outputs
        middle = pooled(_before_labels(build, states, head, rank=3), "mean", False)
    else:
        chosen = pooled(states, "cls" if head.pooling == "first" else "mean", False)
        middle = _before_labels(build, chosen, head, rank=2)
    return _linear(build, middle, head.out, rank=2)


def token_logits(build: Build, states: ir.Value, head: Classifier) -> ir.Value:
    """``[batch, seq, labels]`` from the ``states [batch, seq, hidden]``."""
    return _linear(build, _before_labels(build, states, head, rank=3), head.out, rank=3)


def _before_labels(build: Build, value: ir.Value, head: Classifier, rank: int) -> ir.Value:
    if head.dense is None:
        return value
    dense = _linear(build, value, head.dense, rank)
    middle = activate(build, dense, head.activation, "classifier.activation")
    return middle if head.norm is None else normalize(build, middle, head.norm)


def _linear(build: Build, value: ir.Value, module: str, rank: int) -> ir.Value:
    """``value``, which has ``rank`` dimensions, through the float linear ``module``."""
    parts = [f"{module}.{part}" for part in ("weight", "bias")]
    weight, *bias = [build.vector(name) for name in parts if build.weights.has(name)]
    if rank == 2:
        return build.graph.node("Gemm", module, [value, weight, *bias], transB=1)
    product = transposed_product(build, value, weight, module)
    return build.graph.node("Add", f"{module}.add_bias", [product, *bias]) if bias else product
