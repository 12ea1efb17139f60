"""From a checkpoint's weights to a whole graph, and that graph to disk.

Weights stream into one file beside the graph, which also lifts protobuf's limit of 2 GB.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...compress.model.pooling import Pooling
from ...files.disk import disk_full_is_typed
from ...terminal.progress import ProgressTask
from .build import Build, GraphPart, WeightView
from .decoder_graph import build_decoder
from .encoder_decoder_graph import Stack, build_stack
from .encoder_graph import build_encoder
from .forms.providers import CPU, ProviderForm, rewrite
from .graph_writer import GraphWriter, Opset
from .packed_encoder import build_packed_encoder, packs_tokens

# Below this much, one file is simpler to carry than two.
EXTERNAL_FROM = 1 << 20
_SMALLEST_EXTERNAL = 1 << 10


@dataclass(frozen=True)
class BuiltGraph:
    """A graph that has not been written yet.

    Attributes:
        nbytes: bytes of all initializers.
        bytes_per_token: bytes that one decode step reads.
        inputs: names of the graph's inputs in order.
        notes: storage that differs from the schemes.
        parts: what a proof can run alone, in order, where the graph is as built.
    """

    model: ir.Model
    nbytes: int
    bytes_per_token: int
    inputs: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[GraphPart, ...] = ()


def build_graph(
    view: WeightView,
    opset: Opset,
    pooling: Pooling | None = None,
    form: ProviderForm = CPU,
    stack: Stack = "decoder",
) -> BuiltGraph:
    """The graph of ``view`` in the ``form`` of a provider, of an encoder–decoder that of one ``stack``;
    weights are read when it is saved.
    """
    graph = GraphWriter(view.anatomy.model_type or view.anatomy.kind)
    build = Build(graph, view, exact=form.activations == "float32", tiles=form.linears == "tiles")
    if view.anatomy.kind == "encoder_decoder":
        build_stack(build, stack)
    elif view.anatomy.kind == "decoder":
        build_decoder(build)
    elif build.tiles and packs_tokens(view.anatomy, pooling):
        build_packed_encoder(build, pooling)
    else:
        build_encoder(build, pooling)
    inputs, model = tuple(graph.input_names), graph.model(opset)
    if not form.built:
        rewrite(model, graph, form)
    return BuiltGraph(
        model=model,
        nbytes=sum(graph.nbytes.values()),
        bytes_per_token=sum(graph.read_per_token.values()),
        inputs=inputs,
        notes=tuple(sorted(build.notes)),
        parts=build.parts(),
    )


def save_graph(model: ir.Model, path: Path, nbytes: int, task: ProgressTask, data: str = ".data") -> None:
    """Write ``model`` to ``path``; if its weights (``nbytes`` in all) are large they go to ``path`` +
    ``data``.

    One initializer at a time is in memory. ``task`` advances by the bytes written.
    """
    external = nbytes >= EXTERNAL_FROM
    # What stays inside the graph is computed here: the serializer would bury an error in one of its own.
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.LazyTensor) and (not external or tensor.nbytes < _SMALLEST_EXTERNAL):
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
            task.advance(tensor.nbytes)

    def wrote(tensor: Any, _: Any) -> None:
        task.advance(tensor.nbytes)

    with disk_full_is_typed(path):
        if external:
            ir.save(
                model,
                path,
                external_data=f"{path.name}{data}",
                size_threshold_bytes=_SMALLEST_EXTERNAL,
                callback=wrote,
            )
        else:
            ir.save(model, path)
