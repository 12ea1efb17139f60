"""A decoder's transformer block as nodes.

It lies between the norm that precedes it and the residual addition that follows, which is left
to the caller, who fuses it with the norm of the next block.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy, Linear, Norm
from ...compress.model.block_parts.mixer_anatomy import HeadedStateSpace, StateSpace
from .attention.attention import CausalInputs, causal_attention
from .attention.padding import keep
from .build import Build
from .expert_nodes import mixture
from .linear.linear import project, project_without_bias
from .mlp_nodes import mlp
from .norm import add_and_normalize, normalize
from .state_space_nodes import headed_state_space, state_space
from .states import short_convolution


@dataclass(frozen=True)
class BlockOutputs:
    """What a block leaves: ``out + bias`` is still to be added to ``residual``.

    Attributes:
        bias: ``[hidden]``, or None where there is none.
        present: what the block knows of all tokens: keys and values, or its states.
    """

    out: ir.Value
    bias: ir.Value | None
    residual: ir.Value
    present: tuple[ir.Value, ...]


def decoder_block(
    build: Build,
    normed: ir.Value,
    residual: ir.Value,
    block: BlockAnatomy,
    shared: CausalInputs,
    past: tuple[ir.Value, ...],
    kept: ir.Value | None = None,
) -> BlockOutputs:
    """The nodes of ``block``, which reads ``residual`` and ``normed``, what its attention reads of that.

    ``kept [batch, kept, 1]`` are the places that go on after the attention; None is all.
    """
    last = block.mixer.out
    attended, present = _mixed(build, normed, block, shared, past)
    if kept is not None:
        module = last.name.rpartition(".")[0]
        attended, residual = _kept(build, kept, f"{module}.kept", attended, residual)
    if isinstance(block.mixer, Attention) and block.mixer.inner_norm is not None:
        attended = normalize(build, attended, block.mixer.inner_norm)
    if block.order == "parallel":
        beside = normed
        if block.norm2 != block.norm1:
            beside = normalize(build, residual, block.norm2)
        elif kept is not None:
            (beside,) = _kept(build, kept, f"{block.prefix}.kept", normed)
        first = project(build, attended, [last], last.name)
        out, bias = _feed_forward(build, beside, block)
        out = build.graph.node("Add", f"{block.prefix}.add", [first, out])
    elif block.order == "behind":
        out, _ = _output(build, attended, last, replace(block, attention_norm=block.norm1))
        residual = build.graph.node("Add", f"{block.prefix}.add", [residual, out])
        out, bias = _feed_forward(build, residual, replace(block, mlp_norm=block.norm2))
    elif block.order == "alone":
        out, bias = _output(build, attended, last, block)
    else:
        out, bias = _output(build, attended, last, block)
        normed, residual = add_and_normalize(build, out, residual, block.norm2, bias)
        out, bias = _feed_forward(build, normed, block)
    return BlockOutputs(out, bias, residual, present)


def _mixed(
    build: Build,
    normed: ir.Value,
    block: BlockAnatomy,
    shared: CausalInputs,
    past: tuple[ir.Value, ...],
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    """What the mixer's last linear reads, and what the block knows then."""
    mixer = block.mixer
    if isinstance(mixer, Attention):
        keys, values = past
        attended, *present = causal_attention(build, normed, mixer, shared, (keys, values), mixer.module)
        return attended, tuple(present)
    assert shared.rows is not None
    if isinstance(mixer, StateSpace):
        return state_space(build, normed, mixer, past, shared.rows)
    if isinstance(mixer, HeadedStateSpace):
        return headed_state_space(build, normed, mixer, past, shared.rows)
    mixed, state = short_convolution(build, normed, mixer, past[0], shared.rows)
    return mixed, (state,)


def entering(build: Build, residual: ir.Value, norm: Norm | None, name: str) -> ir.Value:
    """What attention reads of ``residual``: that itself, under a name of its own, where there is no norm."""
    if norm is None:
        return build.graph.node("Identity", f"{name}.read", [residual])
    return normalize(build, residual, norm)


def add_and_enter(
    build: Build, left: BlockOutputs, norm: Norm | None, name: str
) -> tuple[ir.Value, ir.Value]:
    """What the next block's attention reads of what a block ``left``, and the residual."""
    if norm is not None:
        return add_and_normalize(build, left.out, left.residual, norm, left.bias)
    parts = [left.residual, left.out, *([] if left.bias is None else [left.bias])]
    residual = build.graph.node("Sum", f"{name}.sum", parts)
    return entering(build, residual, None, name), residual


def _output(
    build: Build, attended: ir.Value, linear: Linear, block: BlockAnatomy
) -> tuple[ir.Value, ir.Value | None]:
    out, bias = project_without_bias(build, attended, [linear], linear.name)
    return finished(build, out, bias, linear.name, block.attention_norm, block.residual_scale)


def finished(
    build: Build, out: ir.Value, bias: ir.Value | None, name: str, norm: Norm | None, scale: float
) -> tuple[ir.Value, ir.Value | None]:
    """``scale · norm(out + bias)`` of what ``name`` gives, and what bias is still to be added."""
    if norm is None and scale == 1:
        return out, bias
    if bias is not None:
        out = build.graph.node("Add", f"{name}.biased", [out, bias])
    if norm is not None:
        out = normalize(build, out, norm)
    if scale != 1:
        factor = build.graph.constant("residual.factor", np.array(scale, np.float32))
        out = build.graph.node("Mul", f"{name}.scaled", [out, factor])
    return out, None


def _feed_forward(build: Build, value: ir.Value, block: BlockAnatomy) -> tuple[ir.Value, ir.Value | None]:
    out, bias = (
        mlp(build, value, block.mlp, block.mlp.down.name.rpartition(".")[0])
        if block.experts is None
        else (mixture(build, value, block, block.experts), None)
    )
    return finished(build, out, bias, block.mlp.down.name, block.mlp_norm, block.residual_scale)


def _kept(build: Build, places: ir.Value, name: str, *values: ir.Value) -> tuple[ir.Value, ...]:
    build.int8_zeros = None
    return tuple(keep(build, places, f"{name}.{index}", value) for index, value in enumerate(values))
