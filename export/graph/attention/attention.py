"""Causal self-attention of a decoder: ``GroupQueryAttention`` on a key/value cache that it extends, computed
by the fastest of ONNX Runtime's kernels for float32 caches on a CPU.

``GroupQueryAttention`` takes a head's scores in tiles ("flash"), or all at once. The tiles save memory and
cost time at nearly every length (benchmarks/lab/results/prefill.md): for one token each tile is unpacked
into a matrix product, where all at once is a product of a vector and a matrix, if the factor of the scores is
1. So attention gets a sink, for which the kernel has no tiles, and the factor goes into the rope tables, a
square root on the side of the queries and one on that of the keys, so that cached keys carry theirs.

The cost is memory: scores of ``heads · chunk · total`` floats, beside a cache of ``2 · layers · kv_heads ·
head_dim · total``. For SmolLM2 that is a fifth, in chunks of 256, and less for larger models.

q, k and v of latent attention as nodes (DeepSeek-AI 2024, arXiv 2405.04434): the narrow states are widened
before they are cached, so that the attention behind them is that of any decoder.

The kernels know one width of heads: values are padded to it with zeros, and what is read of the padding is
cut off again. The cache holds keys and values of all heads, many times the narrow states.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....compress.model.block_anatomy import Attention, Latent, Norm, Rope
from ..build import Build
from ..linear.linear import project, project_apart
from ..norm import normalize
from ..states import RowStates
from .cache_io import cast, codes

# Where biases and the sink stand among the inputs of GroupQueryAttention.
BIAS_AT, SINK_AT = 10, 11
# What ends the name of our own operator for each type of the cache.
_WIDTHS = {"float32": "", "float16": "16", "int8": "8", "uint8": "4"}
# exp(NO_SINK - x) is 0 for every score x.
NO_SINK = -1e30


@dataclass(frozen=True)
class CausalInputs:
    """What every layer's attention reads beside its hidden states.

    Attributes:
        last_position: ``[batch]`` int32, valid tokens of each row less one.
        total: int32 scalar, valid tokens of the longest row.
        ropes, tables: each rope that a layer has, and its cosines and sines.
        factor: what the tables multiply all scores by.
        biases: of scores by distance, as the operator takes them; None where there are none.
        rows: what blocks that do not attend read of the rows; None where there are none.
    """

    last_position: ir.Value
    total: ir.Value
    ropes: tuple[Rope, ...]
    tables: tuple[tuple[ir.Value, ir.Value], ...]
    factor: float = 1.0
    biases: ir.Value | None = None
    rows: RowStates | None = None

    def table(self, part: Attention) -> tuple[ir.Value | None, ir.Value | None]:
        """Cosines and sines of the layer, or twice None."""
        return (None, None) if part.rope is None else self.tables[self.ropes.index(part.rope)]


def causal_attention(
    build: Build,
    value: ir.Value,
    part: Attention,
    shared: CausalInputs,
    past: tuple[ir.Value, ir.Value],
    name: str,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Attention output ``[batch, seq, heads · head_dim]`` before the output projection (and a norm of its
    inputs), and the present key and value.
    """
    query = _queries(build, value, part, name)
    if not build.own_attention:
        query = [None if one is None else cast(build, one, ir.DataType.FLOAT16) for one in query]
    window = part.sliding_window
    scales, code_attributes = codes(build, part)
    inputs = [*query, *past, shared.last_position, shared.total, *shared.table(part)]
    weightless = sink(build, part)
    if scales or weightless is not None or shared.biases is not None:
        inputs += [*[None] * (BIAS_AT - len(inputs)), shared.biases, weightless, *scales]
    operator, write = "GroupQueryAttention", build.graph.contrib_outputs
    if build.own_attention:
        operator, write = f"CachedAttention{_WIDTHS[build.weights.kv_dtype]}", build.graph.own
        code_attributes = {}
    attended, key, present = write(
        operator,
        name,
        inputs,
        3,
        num_heads=part.heads,
        kv_num_heads=part.kv_heads,
        do_rotary=int(part.rope is not None),
        local_window_size=-1 if window is None else window,
        scale=factor(part) / shared.factor,
        softcap=part.softcap or 0.0,
        **code_attributes,
    )
    if not build.own_attention:
        attended = cast(build, attended, ir.DataType.FLOAT)
    if part.latent is not None:
        attended = without_padding(build, attended, part, name)
    return attended, key, present


def _queries(build: Build, value: ir.Value, part: Attention, name: str) -> list[ir.Value | None]:
    """Queries, keys and values: in one tensor, or apart where they come of a latent or have norms."""
    if part.latent is not None:
        return [*latent_parts(build, value, part, part.latent, name)]
    packed = project(build, value, part.projections, f"{name}.qkv")
    if part.q_norm is None and part.k_norm is None:
        return [packed, None, None]
    sizes = [part.q.out_features, part.k.out_features, part.v.out_features]
    q, k, v = build.graph.split(f"{name}.split", packed, sizes)
    return [normed(build, q, part.q_norm, part), normed(build, k, part.k_norm, part), v]


def normed(build: Build, value: ir.Value, norm: Norm | None, part: Attention) -> ir.Value:
    """``norm`` of each head of the queries or keys ``value``, or of all at once, as ``part`` says."""
    if norm is None:
        return value
    if part.normed_over_heads:
        return normalize(build, value, norm)
    graph = build.graph
    heads = graph.constant(f"heads.{part.head_dim}", np.array([0, 0, -1, part.head_dim], np.int64))
    flat = graph.constant("heads.flat", np.array([0, 0, -1], np.int64))
    normed = normalize(build, graph.node("Reshape", f"{norm.name}.heads", [value, heads]), norm)
    return graph.node("Reshape", f"{norm.name}.flat", [normed, flat])


def factor(part: Attention) -> float:
    """What scores are multiplied by before the softmax."""
    return part.scale if part.scale is not None else part.head_dim**-0.5


def factor_in_rope(build: Build) -> float:
    """The factor that the rope tables can carry for all layers, 1 where they cannot."""
    parts = build.anatomy.attentions()
    factors = {factor(part) for part in parts}
    if build.own_attention or build.weights.kv_dtype != "float32" or len(factors) != 1:
        return 1.0
    whole = all(part.rope is not None and part.head_dim == part.rope.dim for part in parts)
    (found,) = factors
    return found if whole and found > 0 else 1.0


def sink(build: Build, part: Attention) -> ir.Value | None:
    """The sinks of the layer: the model's, or such as change nothing; or None where the kernel may as well
    decide: a window's tiles save work, a softcap has no tiles, and codes are read as fast in tiles.
    """
    if part.sinks is not None:
        return cast(build, build.vector(part.sinks), ir.DataType.FLOAT16)
    floats = build.weights.kv_dtype == "float32"
    if build.own_attention or not floats or part.sliding_window is not None or part.softcap:
        return None
    return build.graph.constant(f"no_sink.{part.heads}", np.full(part.heads, NO_SINK, np.float32))


def without_sinks(model: ir.Model) -> None:
    """Take the sinks out of ``model``: for providers that have no such input."""
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention" and len(node.inputs) > SINK_AT:
            node.replace_input_with(SINK_AT, None)
    RemoveUnusedNodesPass()(model)


def latent_parts(build: Build, value: ir.Value, part: Attention, latent: Latent, name: str) -> list[ir.Value]:
    """q, k and v, each ``[batch, seq, heads · head_dim]``, of ``value [batch, seq, hidden]``; the channels
    that the rope turns come first in each head.
    """
    graph, width = build.graph, part.head_dim
    first, narrow = project_apart(build, value, part.projections, f"{name}.narrow", f"{name}.narrow.split")
    if latent.q_a is None or latent.q_a_norm is None:
        query = first
    else:
        query = project(build, normalize(build, first, latent.q_a_norm), [part.q], part.q.name)
    rank = latent.kv_a.out_features - latent.turned
    state, turned = graph.split(f"{name}.state", narrow, [rank, latent.turned])
    wide = project(build, normalize(build, state, latent.kv_a_norm), [latent.kv_b], latent.kv_b.name)
    plain, values = width - latent.turned, part.v.out_features // part.heads
    keys, read = graph.split(f"{name}.wide", wide, [part.heads * plain, part.heads * values])
    shared = graph.node("Unsqueeze", f"{name}.turned", [turned, _numbers(build, 2)])
    every = graph.node("Expand", f"{name}.turned.every", [shared, _numbers(build, 1, 1, part.heads, 1)])
    both = [every, _by_head(build, keys, part.heads, plain, f"{name}.keys")]
    key = graph.node("Concat", f"{name}.key", both, axis=-1)
    found = [query, _flat(build, key, f"{name}.key.flat"), read]
    if values < width:
        each = _by_head(build, read, part.heads, values, f"{name}.values")
        pads = _numbers(build, *[0] * 7, width - values)
        found[2] = _flat(build, graph.node("Pad", f"{name}.padded", [each, pads]), f"{name}.value.flat")
    return found


def without_padding(build: Build, attended: ir.Value, part: Attention, name: str) -> ir.Value:
    """``[batch, seq, heads · values]`` of what attention to padded values gives."""
    values = part.v.out_features // part.heads
    if values == part.head_dim:
        return attended
    each = _by_head(build, attended, part.heads, part.head_dim, f"{name}.attended")
    ends = [_numbers(build, 0), _numbers(build, values), _numbers(build, 3)]
    cut = build.graph.node("Slice", f"{name}.cut", [each, *ends])
    return _flat(build, cut, f"{name}.cut.flat")


def _by_head(build: Build, value: ir.Value, heads: int, width: int, name: str) -> ir.Value:
    return build.graph.node("Reshape", name, [value, _numbers(build, 0, 0, heads, width)])


def _flat(build: Build, value: ir.Value, name: str) -> ir.Value:
    return build.graph.node("Reshape", name, [value, _numbers(build, 0, 0, -1)])


def _numbers(build: Build, *numbers: int) -> ir.Value:
    name = f"numbers.{'.'.join(map(str, numbers))}"
    return build.graph.constant(name, np.array(numbers, np.int64))
