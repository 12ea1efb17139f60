"""The MLP of a block: gate and up from one input, or up alone."""

from __future__ import annotations

import onnx_ir as ir

from ...compress.model.block_anatomy import Mlp
from .activation import activate
from .build import Build
from .linear.linear import project_apart, project_without_bias
from .norm import normalize


def mlp(build: Build, value: ir.Value, part: Mlp, name: str) -> tuple[ir.Value, ir.Value | None]:
    """``down(act(gate(x)) · up(x))`` or ``down(act(up(x)))``, with a norm before ``down`` in some, and
    the bias of ``down``, which is left to be added.
    """
    if part.gate is None:
        wide, bias = project_without_bias(build, value, [part.up], part.up.name)
        inner = activate(build, wide, part.activation, f"{name}.act", bias)
    else:
        gate, up = project_apart(build, value, [part.gate, part.up], f"{name}.gate_up", f"{name}.split")
        inner = build.graph.node(
            "Mul", f"{name}.mul", [activate(build, gate, part.activation, f"{name}.act"), up]
        )
    if part.inner_norm is not None:
        inner = normalize(build, inner, part.inner_norm)
    return project_without_bias(build, inner, [part.down], part.down.name)
