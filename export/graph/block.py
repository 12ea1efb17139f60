"""One block of a decoder, between the norm that precedes it and the sum that follows.

The last addition is left to the caller, who fuses it with the norm of the next block.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...compress.anatomy import BlockAnatomy, Linear, Norm
from .attention import CausalInputs, causal_attention
from .build import Build
from .linear import project, project_without_bias
from .mlp import mlp
from .norm import add_and_normalize, normalize


@dataclass(frozen=True)
class BlockOutputs:
    """What a block leaves: ``out + bias`` is still to be added to ``residual``.

    Attributes:
        bias: ``[hidden]``, or None where there is none.
        present: the key and value caches, extended.
    """

    out: ir.Value
    bias: ir.Value | None
    residual: ir.Value
    present: tuple[ir.Value, ir.Value]


def decoder_block(
    build: Build,
    normed: ir.Value,
    residual: ir.Value,
    block: BlockAnatomy,
    shared: CausalInputs,
    past: tuple[ir.Value, ir.Value],
) -> BlockOutputs:
    """The nodes of ``block``, which reads ``residual`` and ``normed``, its ``norm1`` of that."""
    part = block.attention
    attended, key, value = causal_attention(build, normed, part, shared, past, part.module)
    if block.order == "parallel":
        beside = normed if block.norm2 == block.norm1 else normalize(build, residual, block.norm2)
        first = project(build, attended, [part.o], part.o.name)
        out, bias = _feed_forward(build, beside, block)
        out = build.graph.node("Add", f"{block.prefix}.add", [first, out])
    else:
        out, bias = _output(build, attended, part.o, block.attention_norm)
        normed, residual = add_and_normalize(build, out, residual, block.norm2, bias)
        out, bias = _feed_forward(build, normed, block)
    return BlockOutputs(out, bias, residual, (key, value))


def _output(
    build: Build, attended: ir.Value, linear: Linear, norm: Norm | None
) -> tuple[ir.Value, ir.Value | None]:
    if norm is None:
        return project_without_bias(build, attended, [linear], linear.name)
    return normalize(build, project(build, attended, [linear], linear.name), norm), None


def _feed_forward(build: Build, value: ir.Value, block: BlockAnatomy) -> tuple[ir.Value, ir.Value | None]:
    out, bias = mlp(build, value, block.mlp, block.mlp.down.name.rpartition(".")[0])
    if block.mlp_norm is None:
        return out, bias
    if bias is not None:
        out = build.graph.node("Add", f"{block.prefix}.add_bias", [out, bias])
    return normalize(build, out, block.mlp_norm), None
