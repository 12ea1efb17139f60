"""The MLP of a transformer block as nodes, and the functions in it."""

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Mlp
from ...compress.model.graph_limits import ACTIVATIONS, TANH_GELU
from ...errors import UnknownName
from .build import Build
from .linear.linear import project, project_apart, project_without_bias
from .linear.tiles import gates_together, tile_product
from .norm import normalize

SILU = ("silu", "swish")


def mlp(build: Build, value: ir.Value, part: Mlp, name: str) -> tuple[ir.Value, ir.Value | None]:
    """``down(act(gate(x)) · up(x))`` or ``down(act(up(x)))``, with a norm before ``down`` in some, and
    the bias of ``down``, which is left to be added.
    """
    if part.gate is None:
        wide, bias = project_without_bias(build, value, [part.up], part.up.name)
        inner = activate(build, wide, part.activation, f"{name}.act", bias)
    elif part.gate_up is None and part.activation in SILU and gates_together(build, [part.gate, part.up]):
        scheme = build.weights.scheme(part.up.name)
        assert scheme is not None
        pair = [part.gate, part.up]
        inner = tile_product(build, value, pair, scheme, f"{name}.gate_up", None, gated=True)
    else:
        gate, up = _within(build, _gate_and_up(build, value, part, name), part, name)
        inner = build.graph.node(
            "Mul", f"{name}.mul", [activate(build, gate, part.activation, f"{name}.act"), up]
        )
    if part.inner_norm is not None:
        inner = normalize(build, inner, part.inner_norm)
    return project_without_bias(build, inner, [part.down], part.down.name)


def _gate_and_up(build: Build, value: ir.Value, part: Mlp, name: str) -> tuple[ir.Value, ...]:
    assert part.gate is not None
    if part.gate_up is None:
        return project_apart(build, value, [part.gate, part.up], f"{name}.gate_up", f"{name}.split")
    both = project(build, value, [part.gate_up], part.gate_up.name)
    return build.graph.split(f"{name}.split", both, [part.gate.out_features, part.up.out_features])


def _within(build: Build, values: tuple[ir.Value, ...], part: Mlp, name: str) -> tuple[ir.Value, ir.Value]:
    """Gate and up within the limit of ``part``, and up with its offset."""
    (gate, up), graph = values, build.graph
    if part.limit is not None:
        least, most = (
            graph.constant(f"mlp.limit.{limit}", np.array(limit, np.float32))
            for limit in (-part.limit, part.limit)
        )
        gate = graph.node("Clip", f"{name}.gate.clip", [gate, None, most])
        up = graph.node("Clip", f"{name}.up.clip", [up, least, most])
    if part.up_offset:
        offset = graph.constant(f"mlp.offset.{part.up_offset}", np.array(part.up_offset, np.float32))
        up = graph.node("Add", f"{name}.up.offset", [up, offset])
    return gate, up


def activate(
    build: Build, value: ir.Value, function: str, name: str, bias: ir.Value | None = None
) -> ir.Value:
    """``function(value + bias)``, elementwise."""
    graph = build.graph
    if function == "gelu" and bias is not None:
        return graph.contrib("BiasGelu", name, [value, bias])
    if function in TANH_GELU:
        return graph.contrib("FastGelu", name, [value] if bias is None else [value, bias])
    if bias is not None:
        value = graph.node("Add", f"{name}.add_bias", [value, bias])
    if function == "gelu":
        return graph.contrib("Gelu", name, [value])
    if function in SILU:
        return graph.contrib("QuickGelu", name, [value], alpha=1.0)
    if function == "quick_gelu":
        return graph.contrib("QuickGelu", name, [value], alpha=1.702)
    if function == "relu2":
        rectified = graph.node("Relu", f"{name}.relu", [value])
        return graph.node("Mul", name, [rectified, rectified])
    if function in ("relu", "tanh"):
        return graph.node(function.capitalize(), name, [value])
    raise UnknownName("activation function", function, ACTIVATIONS)
