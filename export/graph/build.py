"""``Build``: what the builder of every part of a graph is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...compress.model.anatomy import Anatomy
from ...runtime.bundle.manifest import PrepackedLinear
from .graph_writer import GraphWriter
from .view import WeightView


@dataclass
class Build:
    """One graph under construction.

    Attributes:
        graph: where nodes and initializers go.
        weights: where initializers come from.
        accuracy_level: of every ``MatMulNBits``: 4 computes on int8 activations and is the fast one, 0 on
            float32.
        notes: storage that differs from the scheme, as sentences for the manifest.
        int8_inputs: activations already quantized per token: ``(uint8 codes, scale)`` by value.
        int8_zeros: their zero points ``[batch, seq, 1]``, the same for all; whoever changes the number of
            positions resets it to None.
        smooth: factors ``[hidden]`` by the name of the norm whose outputs are divided by them.
        remade: None in a graph that has its weights; in one for prefill, the products whose weights the
            device makes of those of the model's graph.
    """

    graph: GraphWriter
    weights: WeightView
    accuracy_level: int = 4
    notes: set[str] = field(default_factory=set)
    int8_inputs: dict[ir.Value, tuple[ir.Value, ir.Value]] = field(default_factory=dict)
    int8_zeros: ir.Value | None = None
    smooth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    remade: list[PrepackedLinear] | None = None

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the model."""
        return self.weights.anatomy

    def vector(self, name: str) -> ir.Value:
        """The stored float tensor ``name`` as an initializer of its own shape."""
        weights = self.weights
        return self.graph.weight(
            name,
            ir.DataType.FLOAT,
            weights.shape(name),
            lambda: weights.tensor(name).numpy().astype(np.float32),
        )
