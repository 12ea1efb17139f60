"""From a checkpoint's weights to a whole graph, with what there is to know about it before it is written."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...compress.model.pooling import Pooling
from .build import Build
from .decoder_graph import build_decoder
from .encoder_graph import build_encoder
from .forms.forms import rewrite
from .forms.providers import CPU, ProviderForm
from .graph_writer import GraphWriter
from .opset import Opset
from .view import WeightView


@dataclass(frozen=True)
class BuiltGraph:
    """A graph that has not been written yet.

    Attributes:
        nbytes: bytes of all initializers.
        bytes_per_token: bytes that one decode step reads.
        inputs: names of the graph's inputs in order.
        notes: storage that differs from the schemes.
    """

    model: ir.Model
    nbytes: int
    bytes_per_token: int
    inputs: tuple[str, ...]
    notes: tuple[str, ...]


def build_graph(
    view: WeightView, opset: Opset, pooling: Pooling | None = None, form: ProviderForm = CPU
) -> BuiltGraph:
    """The graph of ``view`` in the ``form`` of a provider; weights are read when it is saved.

    Raises:
        ShapeError: a scheme or size that no kernel can hold; names the layer.
        CheckpointError, UnknownName: a part that the graphs cannot express.
    """
    graph = GraphWriter(view.anatomy.model_type or view.anatomy.kind)
    build = Build(graph, view)
    if view.anatomy.kind == "decoder":
        build_decoder(build)
    else:
        build_encoder(build, pooling)
    inputs, model = tuple(graph.input_names), graph.model(opset)
    if form != CPU:
        rewrite(model, graph, form)
    return BuiltGraph(
        model=model,
        nbytes=sum(graph.nbytes.values()),
        bytes_per_token=sum(graph.read_per_token.values()),
        inputs=inputs,
        notes=tuple(sorted(build.notes)),
    )
