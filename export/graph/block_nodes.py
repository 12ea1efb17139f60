"""A transformer block as nodes: its MLP, and the whole block of a decoder.

A decoder's block lies between the norm that precedes it and the residual addition that follows, which is left
to the caller, who fuses it with the norm of the next block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import BlockAnatomy, Linear, Mlp, Norm
from ...errors import UnknownName
from .attention.attention import CausalInputs, causal_attention
from .build import Build
from .linear.linear import project, project_apart, project_without_bias
from .linear.tiles import gates_together, tile_product
from .norm import add_and_normalize, normalize

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
KNOWN = ("silu", "swish", "gelu", "quick_gelu", "relu", "relu2", "tanh", *_TANH_GELU)
_SILU = ("silu", "swish")
_END = np.iinfo(np.int64).max


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
    kept: ir.Value | None = None,
) -> BlockOutputs:
    """The nodes of ``block``, which reads ``residual`` and ``normed``, its ``norm1`` of that.

    ``kept [1]`` is how many of the last positions go on after the attention, 0 for all; None is all, too.
    """
    part = block.attention
    attended, key, value = causal_attention(build, normed, part, shared, past, part.module)
    if kept is not None:
        attended, residual = _last_positions(build, kept, f"{part.module}.kept", attended, residual)
    if part.inner_norm is not None:
        attended = normalize(build, attended, part.inner_norm)
    if block.order == "parallel":
        beside = normed
        if block.norm2 != block.norm1:
            beside = normalize(build, residual, block.norm2)
        elif kept is not None:
            (beside,) = _last_positions(build, kept, f"{block.prefix}.kept", normed)
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


def _last_positions(build: Build, kept: ir.Value, name: str, *values: ir.Value) -> tuple[ir.Value, ...]:
    # Slicing from -n keeps the last n positions, and from -0 all of them.
    graph = build.graph
    start = graph.node("Neg", f"{name}.start", [kept])
    end = graph.constant("kept.end", np.array([_END], np.int64))
    axis = graph.constant("kept.axis", np.array([1], np.int64))
    build.int8_zeros = None
    return tuple(
        graph.node("Slice", f"{name}.{index}", [value, start, end, axis])
        for index, value in enumerate(values)
    )


def mlp(build: Build, value: ir.Value, part: Mlp, name: str) -> tuple[ir.Value, ir.Value | None]:
    """``down(act(gate(x)) · up(x))`` or ``down(act(up(x)))``, with a norm before ``down`` in some, and
    the bias of ``down``, which is left to be added.
    """
    if part.gate is None:
        wide, bias = project_without_bias(build, value, [part.up], part.up.name)
        inner = activate(build, wide, part.activation, f"{name}.act", bias)
    elif part.activation in _SILU and gates_together(build, [part.gate, part.up]):
        scheme = build.weights.scheme(part.up.name)
        assert scheme is not None
        pair = [part.gate, part.up]
        inner = tile_product(build, value, pair, scheme, f"{name}.gate_up", None, gated=True)
    else:
        gate, up = project_apart(build, value, [part.gate, part.up], f"{name}.gate_up", f"{name}.split")
        inner = build.graph.node(
            "Mul", f"{name}.mul", [activate(build, gate, part.activation, f"{name}.act"), up]
        )
    if part.inner_norm is not None:
        inner = normalize(build, inner, part.inner_norm)
    return project_without_bias(build, inner, [part.down], part.down.name)


def activate(
    build: Build, value: ir.Value, function: str, name: str, bias: ir.Value | None = None
) -> ir.Value:
    """``function(value + bias)``, elementwise.

    Raises:
        UnknownName: no operator is known to equal ``function``.
    """
    graph = build.graph
    if function == "gelu" and bias is not None:
        return graph.contrib("BiasGelu", name, [value, bias])
    if function in _TANH_GELU:
        return graph.contrib("FastGelu", name, [value] if bias is None else [value, bias])
    if bias is not None:
        value = graph.node("Add", f"{name}.add_bias", [value, bias])
    if function == "gelu":
        return graph.contrib("Gelu", name, [value])
    if function in _SILU:
        return graph.contrib("QuickGelu", name, [value], alpha=1.0)
    if function == "quick_gelu":
        return graph.contrib("QuickGelu", name, [value], alpha=1.702)
    if function == "relu2":
        rectified = graph.node("Relu", f"{name}.relu", [value])
        return graph.node("Mul", name, [rectified, rectified])
    if function in ("relu", "tanh"):
        return graph.node(function.capitalize(), name, [value])
    raise UnknownName("activation function", function, KNOWN)
