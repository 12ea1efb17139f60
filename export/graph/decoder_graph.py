"""The graph of a decoder with a key/value cache: one graph for prefill, chunks and single tokens.

Inputs and outputs have the names of onnxruntime-genai, whose runtime can drive the same file. Layers may
differ in every size. Only the last ``logits_to_keep`` tokens of each row go on after the last block's
attention, through its MLP, the final norm and the head; 0 keeps all columns.

The sum of a row of ``attention_mask`` is the number of its tokens, cached and new, which lie side by side
from the start of the cache, with positions from 0. A batch of prompts is padded on the left or on the right
(:mod:`.attention.padding`), and one step extends every row by one token. A cached row takes several tokens at
a time at batch 1 only.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ...compress.model.anatomy import LogitForm
from ...compress.model.block_anatomy import Rope
from ...compress.model.graph_limits import require_graph
from .attention.attention import CausalInputs, factor_in_rope
from .attention.cache_io import cast
from .attention.padding import columns, kept_places, packed
from .attention.positions import learned_positions, linear_biases, rope_weights
from .block_nodes import add_and_enter, decoder_block, entering
from .build import Build
from .linear.embedding import embed_scaled, head
from .norm import normalize
from .states import pasts, presents, row_states

INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT


def build_decoder(build: Build) -> None:
    """Write the whole graph of ``build.anatomy``."""
    require_graph(build.anatomy)
    graph = build.graph
    ids = graph.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = graph.input("attention_mask", INT64, ["batch_size", "total_sequence_length"])
    lengths = _lengths(build, mask)
    shared = _shared(build, ids, mask, lengths)
    known = [pasts(build, block) for block in build.anatomy.blocks]
    placed = columns(build, ids, mask, lengths)
    shared = replace(shared, rows=row_states(build, lengths, placed))
    residual = _embedded(build, packed(build, ids, placed), lengths)
    number = graph.input("logits_to_keep", INT64, [1])
    graph.default(number, np.ones(1, np.int64))
    kept = kept_places(build, number, placed)
    first = build.anatomy.blocks[0]
    normed = entering(build, residual, first.entry_norm, build.anatomy.embedding)
    build.end_part(build.anatomy.embedding, [ids], [residual, normed], first.entry_norm)
    extended = []
    for index, block in enumerate(build.anatomy.blocks):
        last = index + 1 == len(build.anatomy.blocks)
        entered = [residual, normed]
        left = decoder_block(build, normed, residual, block, shared, known[index], kept if last else None)
        extended.append(left.present)
        following = build.anatomy.final_norm if last else build.anatomy.blocks[index + 1].entry_norm
        normed, residual = add_and_enter(build, left, following, block.prefix)
        build.end_part(block.prefix, entered, [residual, normed], following)
    logits = logits_of(build, normed)
    graph.output(logits, "logits", FLOAT, ["batch_size", "kept", build.anatomy.vocab_size])
    build.end_part(build.anatomy.head or build.anatomy.embedding, [normed], [logits])
    for block, values in zip(build.anatomy.blocks, extended, strict=True):
        presents(build, block, values)


def _embedded(build: Build, ids: ir.Value, lengths: ir.Value) -> ir.Value:
    """What the first block reads, ``[batch, seq, hidden]``."""
    anatomy, value = build.anatomy, embed_scaled(build, ids)
    if anatomy.position_embedding is not None:
        rows = learned_positions(build, ids, lengths, anatomy.position_embedding)
        value = build.graph.node("Add", "embedding.sum", [value, rows])
    return value if anatomy.embedding_norm is None else normalize(build, value, anatomy.embedding_norm)


def logits_of(build: Build, normed: ir.Value) -> ir.Value:
    """Logits ``[…, vocab]`` of states behind the final norm."""
    graph, form = build.graph, build.anatomy.logit_form or LogitForm()
    value = head(build, normed)
    if form.scale != 1:
        factor = graph.constant("logits.factor", np.array(form.scale, np.float32))
        value = graph.node("Mul", "logits.scaled", [value, factor])
    if form.softcap is None:
        return value
    limit = graph.constant("logits.limit", np.array(form.softcap, np.float32))
    value = graph.node("Tanh", "logits.tanh", [graph.node("Div", "logits.div", [value, limit])])
    return graph.node("Mul", "logits.capped", [value, limit])


def _lengths(build: Build, mask: ir.Value) -> ir.Value:
    """Tokens of each row, ``[batch]`` int64."""
    row = build.graph.constant("mask.row", np.array([1], np.int64))
    return build.graph.node("ReduceSum", "mask.lengths", [mask, row], keepdims=0)


def _shared(build: Build, ids: ir.Value, mask: ir.Value, lengths: ir.Value) -> CausalInputs:
    graph = build.graph
    one = graph.constant("mask.one", np.array(1, np.int64))
    last = graph.node(
        "Cast", "mask.last", [graph.node("Sub", "mask.less_one", [lengths, one])], to=ir.DataType.INT32
    )
    total = graph.node("Gather", "mask.width", [graph.node("Shape", "mask.shape", [mask]), one], axis=0)
    total = graph.node("Cast", "mask.total", [total], to=ir.DataType.INT32)
    factor = factor_in_rope(build)
    ropes = build.anatomy.ropes()
    tables = [
        _rope_tables(build, rope, "rope" if index == 0 else f"rope.{index}", factor)
        for index, rope in enumerate(ropes)
    ]
    return CausalInputs(last, total, ropes, tuple(tables), factor, linear_biases(build, ids, mask))


def _rope_tables(build: Build, rope: Rope, name: str, factor: float) -> tuple[ir.Value, ir.Value]:
    """Cosines and sines ``[positions, dim / 2]`` in the type of the attention."""
    cos, sin = rope_weights(build, rope, name, factor**0.5)
    if build.own_attention:
        return cos, sin
    half = ir.DataType.FLOAT16
    return cast(build, cos, half), cast(build, sin, half)
