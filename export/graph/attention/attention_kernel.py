"""Which of ONNX Runtime's kernels computes attention on a CPU: the one that is fastest, over float32 caches.

``GroupQueryAttention`` takes a head's scores in tiles ("flash"), or all at once. The tiles save memory and
cost time at nearly every length (benchmarks/lab/results/attention.md): for one token each tile is unpacked
into a matrix product, where all at once is a product of a vector and a matrix, if the factor of the scores is
1.

So an attention sink is given, for which the kernel has no tiles: a column of the softmax without a value, of
the score :data:`NO_SINK`, whose weight is exactly 0. And the factor goes into the rope tables, a square root
on the side of the queries and one on that of the keys, so that cached keys carry theirs.

The price is memory: scores of ``heads · chunk · total`` floats, beside a cache of ``2 · layers · kv_heads ·
head_dim · total``. For SmolLM2 that is a tenth, in chunks of 128, and less for larger models.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....compress.model.block_anatomy import Attention
from ..build import Build
from .dequantized_cache import opens

# Where the sink stands among the inputs of GroupQueryAttention.
SINK_AT = 11
# exp(NO_SINK - x) is 0 for every score x.
NO_SINK = -1e30


def factor(part: Attention) -> float:
    """What scores are multiplied by before the softmax."""
    return part.scale if part.scale is not None else part.head_dim**-0.5


def factor_in_rope(build: Build) -> float:
    """The factor that the rope tables can carry for all layers, 1 where they cannot."""
    anatomy = build.anatomy
    parts = [block.attention for block in anatomy.blocks]
    factors = {factor(part) for part in parts}
    if anatomy.rope is None or build.weights.kv_dtype != "float32" or len(factors) > 1:
        return 1.0
    whole = all(part.head_dim == anatomy.rope.dim for part in parts)
    (found,) = factors
    return found if whole and found > 0 else 1.0


def sink(build: Build, part: Attention) -> ir.Value | None:
    """The sink of the layer, or None where the kernel may as well decide: a window's tiles save work, a
    softcap has no tiles, and codes are read as fast in tiles.
    """
    floats = build.weights.kv_dtype == "float32" or opens(build)
    if not floats or part.sliding_window is not None or part.softcap:
        return None
    return build.graph.constant(f"no_sink.{part.heads}", np.full(part.heads, NO_SINK, np.float32))


def without_sinks(model: ir.Model) -> None:
    """Take the sinks out of ``model``: for providers that have no such input."""
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention" and len(node.inputs) > SINK_AT:
            node.replace_input_with(SINK_AT, None)
    RemoveUnusedNodesPass()(model)
