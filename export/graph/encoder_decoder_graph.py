"""The two graphs of an encoder–decoder, of operators that any ONNX Runtime has but for quantized products.

The encoder's reads a batch of texts, padded on the right, or of sounds, and gives the keys and values that
each block of the decoder reads of them: the cache of what was read. The decoder's is given those and the
cache of what was written so far, which ``Attention`` extends; all its rows are equally long, since all
answers begin at once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy, Norm
from ...compress.model.graph_limits import require_graph
from .attention.attention import factor
from .attention.distance_bias import causal_biases
from .attention.encoder_attention import PADDING_SCORE
from .attention.encoder_attention import encoder_inputs as attention_inputs
from .audio_nodes import sound_states
from .build import Build
from .decoder_graph import logits_of
from .encoder_graph import encoder_block
from .graph_writer import Array
from .linear.embedding import embed
from .linear.linear import project, project_apart, project_without_bias
from .mlp_nodes import mlp
from .norm import add_and_normalize, normalize

Stack = Literal["encoder", "decoder"]
INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT
READ = "source_length"  # tokens of the longest text
_WAVELENGTH = 10_000.0


def build_stack(build: Build, stack: Stack) -> None:
    """Write the graph of one ``stack`` of ``build.anatomy``, an encoder–decoder; ``build.weights`` is left
    with the anatomy of that stack.

    Raises:
        CheckpointError, UnknownName: as :func:`require_graph`.
        ShapeError: a size that the kernels cannot handle; names the layer.
    """
    require_graph(build.anatomy)
    encoder, decoder = build.anatomy.stacks()
    if stack == "encoder":
        build.weights.anatomy = encoder
        _encoder(build, decoder.blocks)
    else:
        build.weights.anatomy = decoder
        _decoder(build, masked=encoder.hearing is None)


def _encoder(build: Build, readers: tuple[BlockAnatomy, ...]) -> None:
    graph, anatomy = build.graph, build.anatomy
    if anatomy.hearing is not None:
        mask, hidden = None, sound_states(build, anatomy.hearing)
    else:
        ids = graph.input("input_ids", INT64, ["batch_size", READ])
        mask = graph.input("attention_mask", INT64, ["batch_size", READ])
        hidden = _embedded(build, ids, graph.constant("position.none", np.array(0, np.int64)))
    shared = attention_inputs(build, mask)
    for block in anatomy.blocks:
        hidden = encoder_block(build, hidden, shared, block)
    if anatomy.final_norm is not None:
        hidden = normalize(build, hidden, anatomy.final_norm)
    for index, reader in enumerate(readers):
        assert reader.cross is not None
        part, name = reader.cross, reader.cross.module
        both = project_apart(build, hidden, [part.k, part.v], f"{name}.kv", f"{name}.split")
        for kind, value in zip(("key", "value"), both, strict=True):
            read = graph.node("Identity", f"{name}.{kind}", [value])
            graph.output(read, f"cross.{index}.{kind}", FLOAT, _read_shape(part))


def _decoder(build: Build, *, masked: bool) -> None:
    """``masked`` are texts of unequal length that were read, by their padding."""
    graph, anatomy = build.graph, build.anatomy
    ids = graph.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = graph.input("encoder_attention_mask", INT64, ["batch_size", READ]) if masked else None
    pasts = [_inputs(build, f"past_key_values.{n}", _cache_shape(b)) for n, b in enumerate(anatomy.blocks)]
    read = [_inputs(build, f"cross.{n}", _read_shape(_cross(b))) for n, b in enumerate(anatomy.blocks)]
    cached = graph.node("Shape", "position.shape", [pasts[0][0]], start=2, end=3)
    cached = graph.node("Squeeze", "position.cached", [cached])
    state = _embedded(build, ids, cached)
    seen = causal_biases(build, ids, cached, float(PADDING_SCORE))
    known = None if mask is None else _of_padding(build, ids, mask)
    for index, block in enumerate(anatomy.blocks):
        state, present = _block(build, state, block, (seen, known), (pasts[index], read[index]))
        for kind, value in zip(("key", "value"), present, strict=True):
            graph.output(value, f"present.{index}.{kind}", FLOAT, _cache_shape(block, "total_length"))
    normed = state if anatomy.final_norm is None else normalize(build, state, anatomy.final_norm)
    logits = logits_of(build, normed)
    if anatomy.head_bias is not None:
        logits = graph.node("Add", "logits.biased", [logits, build.vector(anatomy.head_bias)])
    graph.output(logits, "logits", FLOAT, ["batch_size", "sequence_length", anatomy.vocab_size])


Pair = tuple[ir.Value, ir.Value]


def _block(
    build: Build,
    state: ir.Value,
    block: BlockAnatomy,
    scores: tuple[ir.Value, ir.Value | None],
    caches: tuple[Pair, Pair],
) -> tuple[ir.Value, Pair]:
    """What leaves ``block`` where ``state`` enters it, and its keys and values, extended. ``scores`` are
    added to those of tokens that were written, and of those that were read; ``caches`` hold their keys and
    values.
    """
    before = block.order == "pre"
    part, cross = block.attention, _cross(block)
    assert block.cross_norm is not None
    read = normalize(build, state, block.norm1) if before else state
    attended, *present = _written_attention(build, read, part, scores[0], caches[0])
    norms = (block.cross_norm, block.norm2) if before else (block.norm1, block.cross_norm)
    read, state = _joined(build, attended, part, state, norms[0], before)
    query = project(build, read, [cross.q], cross.q.name)
    attended = _attention(build, cross, [query, *caches[1], scores[1]], 1)[0]
    read, state = _joined(build, attended, cross, state, norms[1], before)
    out, bias = mlp(build, read, block.mlp, f"{block.prefix}.mlp")
    if not before:
        return add_and_normalize(build, out, state, block.norm2, bias)[0], (present[0], present[1])
    parts = [state, out, *([] if bias is None else [bias])]
    return build.graph.node("Sum", f"{block.prefix}.sum", parts), (present[0], present[1])


def _joined(
    build: Build, attended: ir.Value, part: Attention, state: ir.Value, norm: Norm, before: bool
) -> Pair:
    """What is read next, and what it will be added to."""
    out, bias = project_without_bias(build, attended, [part.o], part.o.name)
    normed, total = add_and_normalize(build, out, state, norm, bias)
    return normed, total if before else normed


def _written_attention(
    build: Build, value: ir.Value, part: Attention, scores: ir.Value, past: Pair
) -> tuple[ir.Value, ...]:
    name = part.module
    apart = project_apart(build, value, [part.q, part.k, part.v], f"{name}.qkv", f"{name}.split")
    return _attention(build, part, [*apart, scores, *past], 3)


def _attention(
    build: Build, part: Attention, inputs: list[ir.Value | None], outputs: int
) -> tuple[ir.Value, ...]:
    return build.graph.outputs(
        "Attention",
        part.module,
        inputs,
        outputs,
        q_num_heads=part.heads,
        kv_num_heads=part.kv_heads,
        scale=factor(part),
    )


def _of_padding(build: Build, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """What is added to the scores of tokens that were read, ``[batch, 1, seq, read]``."""
    graph = build.graph
    axes = graph.constant("read.axes", np.array([1, 2], np.int64))
    real = graph.node("Unsqueeze", "read.real", [graph.node("Cast", "read.mask", [mask], to=9), axes])
    nothing = graph.constant("read.nothing", np.array(0, np.float32))
    least = graph.constant("read.padding", np.array(PADDING_SCORE, np.float32))
    scores = graph.node("Where", "read.scores", [real, nothing, least])
    one = graph.constant("read.one", np.array([1], np.int64))
    written = graph.node("Shape", "read.written", [ids], start=1, end=2)
    shape = graph.node("Concat", "read.shape", [one, one, written, one], axis=0)
    return graph.node("Expand", "read.pairs", [scores, shape])


def _embedded(build: Build, ids: ir.Value, cached: ir.Value) -> ir.Value:
    """What the first block reads of ``ids [batch, seq]``, before which ``cached`` tokens stand."""
    graph, anatomy = build.graph, build.anatomy
    value = embed(build, ids)
    if anatomy.embedding_scale != 1:
        scale = graph.constant("embedding.factor", np.array(anatomy.embedding_scale, np.float32))
        value = graph.node("Mul", "embedding.scale", [value, scale])
    if anatomy.position_embedding is not None:
        one = graph.constant("position.one", np.array(1, np.int64))
        width = graph.node("Squeeze", "position.width", [graph.node("Shape", "position.ids", [ids], start=1)])
        offset = graph.constant("position.offset", np.array(anatomy.position_offset, np.int64))
        first = graph.node("Add", "position.first", [cached, offset])
        last = graph.node("Add", "position.last", [first, width])
        steps = graph.node("Range", "position.steps", [first, last, one])
        table = _positions(build, anatomy.position_embedding)
        rows = graph.node("Gather", "positions", [table, steps], axis=0)
        value = graph.node("Add", "embedding.sum", [value, rows])
    return value if anatomy.embedding_norm is None else normalize(build, value, anatomy.embedding_norm)


def _positions(build: Build, module: str) -> ir.Value:
    anatomy = build.anatomy
    if module not in anatomy.computed:
        return build.table(module)
    shape = [anatomy.max_positions, anatomy.hidden_size]
    return build.graph.weight(
        f"{module}.sines", FLOAT, shape, lambda: sines(*shape), read_per_token=4 * anatomy.hidden_size
    )


def sines(positions: int, hidden: int) -> Array:
    """A table ``[positions, hidden]`` whose first half are sines of falling frequency, and the others their
    cosines (Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762).
    """
    frequencies = np.power(_WAVELENGTH, -2 * (np.arange(hidden) // 2) / hidden)
    angles = np.arange(positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles[:, ::2]), np.cos(angles[:, 1::2])], axis=1).astype(np.float32)


def _cross(block: BlockAnatomy) -> Attention:
    assert block.cross is not None
    return block.cross


def _inputs(build: Build, name: str, shape: list[int | str]) -> Pair:
    return build.graph.input(f"{name}.key", FLOAT, shape), build.graph.input(f"{name}.value", FLOAT, shape)


def _cache_shape(block: BlockAnatomy, length: str = "past_length") -> list[int | str]:
    return ["batch_size", block.attention.kv_heads, length, block.attention.head_dim]


def _read_shape(part: Attention) -> list[int | str]:
    return ["batch_size", READ, part.kv_heads * part.head_dim]
