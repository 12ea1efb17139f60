"""The nodes of a classifier of texts: from the state of the first token to the logits, in float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.model.classifier import Classifier
from .build import Build

LOGITS = "logits"
_OPERATORS = {"tanh": "Tanh", "relu": "Relu"}


def label_logits(build: Build, hidden: ir.Value, head: Classifier) -> ir.Value:
    """``[batch, labels]`` from states ``[batch, seq, hidden]``."""
    graph = build.graph
    place = graph.constant("classifier.place", np.array(0, np.int64))
    first = graph.node("Gather", "classifier.first", [hidden, place], axis=1)
    middle = graph.node(
        _OPERATORS[head.activation], "classifier.activation", [_linear(build, first, head.dense)]
    )
    return _linear(build, middle, head.out)


def _linear(build: Build, value: ir.Value, module: str) -> ir.Value:
    parts = [f"{module}.{part}" for part in ("weight", "bias")]
    stored = [build.vector(name) for name in parts if build.weights.has(name)]
    return build.graph.node("Gemm", module, [value, *stored], transB=1)
