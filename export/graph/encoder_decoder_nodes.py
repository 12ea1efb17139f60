"""What both layouts of the graphs of an encoder–decoder have: tokens that become states, and blocks of the
decoder, which read what was written and what the encoder read.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy, Norm
from .attention.attention import factor
from .attention.cache_io import KINDS, CacheKind, is_compact, read, stored, stored_width, weighted
from .attention.encoder_attention import PADDING_SCORE, causal_biases
from .attention.encoder_attention import encoder_inputs as attention_inputs
from .build import Build
from .decoder_graph import logits_of
from .encoder_graph import encoder_block
from .graph_writer import Array
from .linear.embedding import embed_scaled
from .linear.linear import project, project_apart, project_without_bias
from .mlp_nodes import mlp
from .norm import add_and_normalize, normalize

FLOAT = ir.DataType.FLOAT
_WAVELENGTH = 10_000.0
# The part of an encoder's graph that makes states of spectra.
SPECTRA = "spectra"

Pair = tuple[ir.Value, ir.Value]
# The attention of a block's queries to what was read, of its number, part and queries.
Reader = Callable[[int, Attention, ir.Value], ir.Value]


def encoded(build: Build, hidden: ir.Value, mask: ir.Value | None) -> ir.Value:
    """What leaves the encoder where ``hidden`` enters its first block; ``mask`` is 1 for tokens of texts."""
    shared = attention_inputs(build, mask)
    for block in build.anatomy.blocks:
        entered, hidden = hidden, encoder_block(build, hidden, shared, block)
        build.end_part(block.prefix, [entered], [hidden])
    norm = build.anatomy.final_norm
    if norm is None:
        return hidden
    normed = normalize(build, hidden, norm)
    build.end_part(norm.name, [hidden], [normed])
    return normed


def decoded(
    build: Build, ids: ir.Value, pasts: Sequence[Pair], known: Sequence[Pair], reader: Reader
) -> tuple[ir.Value, list[Pair]]:
    """Logits of ``ids [batch, seq]``, and the keys and values ``pasts`` of each block, extended; ``known``
    are those of what was read, of each block, which ``reader`` takes.
    """
    graph, anatomy = build.graph, build.anatomy
    cached = graph.node("Shape", "position.shape", [pasts[0][0]], start=2, end=3)
    cached = graph.node("Squeeze", "position.cached", [cached])
    state = embedded(build, ids, cached)
    seen, presents = causal_biases(build, ids, cached, float(PADDING_SCORE)), []
    for index, block in enumerate(anatomy.blocks):

        def read(part: Attention, query: ir.Value, index: int = index) -> ir.Value:
            return reader(index, part, query)

        entered = [state, *known[index]]
        state, present = _block(build, state, block, seen, pasts[index], read)
        build.end_part(block.prefix, entered, [state])
        presents.append(present)
    normed = state if anatomy.final_norm is None else normalize(build, state, anatomy.final_norm)
    logits = logits_of(build, normed)
    if anatomy.head_bias is not None:
        logits = graph.node("Add", "logits.biased", [logits, build.vector(anatomy.head_bias)])
    build.end_part(anatomy.head or anatomy.embedding, [state], [logits])
    return logits, presents


def _block(
    build: Build,
    state: ir.Value,
    block: BlockAnatomy,
    seen: ir.Value,
    past: Pair,
    reader: Callable[[Attention, ir.Value], ir.Value],
) -> tuple[ir.Value, Pair]:
    """What leaves ``block`` where ``state`` enters it, and its keys and values, extended. ``seen`` is added
    to the scores of tokens that were written, whose keys and values are ``past``.
    """
    before = block.order == "pre"
    part, cross = block.attention, cross_of(block)
    assert block.cross_norm is not None
    read = normalize(build, state, block.norm1) if before else state
    attended, *present = _written_attention(build, read, part, seen, past)
    norms = (block.cross_norm, block.norm2) if before else (block.norm1, block.cross_norm)
    read, state = _joined(build, attended, part, state, norms[0], before)
    attended = reader(cross, project(build, read, [cross.q], cross.q.name))
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
    if not is_compact(build):
        return attention(build, part, [*apart, scores, *past], 3)
    query, *new = apart
    presents = [
        _extended(build, part, kind, cache, one) for kind, cache, one in zip(KINDS, past, new, strict=True)
    ]
    whole = [0, 0, -1, part.head_dim]
    keys, values = (
        read(build, f"{name}.{kind}", one, whole) for kind, one in zip(KINDS, presents, strict=True)
    )
    attended = attention_by_head(build, part, weighted(build, part, "key", query), (keys, values), scores)
    return weighted(build, part, "value", attended), *presents


def _extended(build: Build, part: Attention, kind: CacheKind, cache: ir.Value, new: ir.Value) -> ir.Value:
    """``cache [batch, kv_heads, past, …]`` and behind it what it keeps of ``new [batch, seq, kv_heads ·
    head_dim]``.
    """
    name = f"{part.module}.{kind}"
    kept = stored(build, part, kind, new)
    kept = by_head(build, kept, part.kv_heads, stored_width(build, part.head_dim), name)
    return build.graph.node("Concat", f"{name}.extended", [cache, kept], axis=2)


def by_head(build: Build, value: ir.Value, heads: int, size: int, name: str) -> ir.Value:
    """``[batch, heads, tokens, size]`` of ``[batch, tokens, heads · size]``."""
    graph = build.graph
    shape = graph.constant(f"heads.{heads}.{size}", np.array([0, 0, heads, size], np.int64))
    apart = graph.node("Reshape", f"{name}.apart", [value, shape])
    return graph.node("Transpose", f"{name}.by_head", [apart], perm=[0, 2, 1, 3])


def attention_by_head(
    build: Build, part: Attention, query: ir.Value, read: Pair, scores: ir.Value | None
) -> ir.Value:
    """The node of ``part`` where keys and values are ``[batch, heads, tokens, head_dim]``; ``query`` and
    what it gives have their heads side by side.
    """
    graph, name = build.graph, part.module
    query = by_head(build, query, part.heads, part.head_dim, f"{name}.query")
    attended = graph.node("Attention", name, [query, *read, scores], scale=factor(part))
    tokens = graph.node("Transpose", f"{name}.tokens", [attended], perm=[0, 2, 1, 3])
    shape = graph.constant(
        f"heads.together.{part.heads * part.head_dim}",
        np.array([0, 0, part.heads * part.head_dim], np.int64),
    )
    return graph.node("Reshape", f"{name}.together", [tokens, shape])


def attention(
    build: Build, part: Attention, inputs: list[ir.Value | None], outputs: int
) -> tuple[ir.Value, ...]:
    """The node of ``part``, whose queries, keys and values have their heads side by side in the last axis."""
    return build.graph.outputs(
        "Attention",
        part.module,
        inputs,
        outputs,
        q_num_heads=part.heads,
        kv_num_heads=part.kv_heads,
        scale=factor(part),
    )


def scores_of_padding(build: Build, ids: ir.Value, mask: ir.Value) -> ir.Value:
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


def embedded(build: Build, ids: ir.Value, cached: ir.Value) -> ir.Value:
    """What the first block reads of ``ids [batch, seq]``, before which ``cached`` tokens stand."""
    graph, anatomy, value = build.graph, build.anatomy, embed_scaled(build, ids)
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
    if anatomy.embedding_norm is not None:
        value = normalize(build, value, anatomy.embedding_norm)
    build.end_part(anatomy.embedding, [ids], [value])
    return value


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


def cross_of(block: BlockAnatomy) -> Attention:
    """The attention of ``block`` to what the encoder read."""
    assert block.cross is not None
    return block.cross


def past_shape(build: Build, block: BlockAnatomy, length: str) -> list[int | str]:
    """Of the keys and values of what was written."""
    part = block.attention
    return ["batch_size", part.kv_heads, length, stored_width(build, part.head_dim)]
