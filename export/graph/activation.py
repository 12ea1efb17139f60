"""Activation functions of an MLP, by the name they have in a config, as the fastest equal operator."""

from __future__ import annotations

import onnx_ir as ir

from ...errors import UnknownName
from .build import Build

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
KNOWN = ("silu", "swish", "gelu", "quick_gelu", "relu", "relu2", "tanh", *_TANH_GELU)


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
    if function in ("silu", "swish"):
        return graph.contrib("QuickGelu", name, [value], alpha=1.0)
    if function == "quick_gelu":
        return graph.contrib("QuickGelu", name, [value], alpha=1.702)
    if function == "relu2":
        rectified = graph.node("Relu", f"{name}.relu", [value])
        return graph.node("Mul", name, [rectified, rectified])
    if function in ("relu", "tanh"):
        return graph.node(function.capitalize(), name, [value])
    raise UnknownName("activation function", function, KNOWN)
