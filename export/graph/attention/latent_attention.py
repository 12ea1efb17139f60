"""q, k and v of latent attention as nodes (DeepSeek-AI 2024, arXiv 2405.04434): the narrow states are widened
before they are cached, so that the attention behind them is that of any decoder.

The kernels know one width of heads: values are padded to it with zeros, and what is read of the padding is
cut off again. The cache holds keys and values of all heads, many times the narrow states.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Attention, Latent
from ..build import Build
from ..linear.linear import project, project_apart
from ..norm import normalize


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
