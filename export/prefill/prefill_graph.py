"""The prefill graph of a decoder bundle: nodes only, a few hundred bytes each, and no weights of its own.

Its products of 8-bit integers have weights that are prepacked on the device from the bundle's (see
:mod:`edgepress.runtime.prepack.int8_weights`); everything else is read from the file of the model's own
graph. The channels of norms are smoothed by the square root of their peaks on some text: SmoothQuant (Xiao et
al. 2022, arXiv 2211.10438) with α = 0.5 and from the activations alone, since the weights of 4-bit blocks are
of about one size in every channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...compress.model.block_anatomy import Linear
from ...runtime.bundle.manifest import PrepackedLinear
from ...runtime.prepack.int8_weights import INT8_CODES, INT8_SCALES
from ...runtime.session.session import open_session
from ...storage import disk_full_is_typed
from ..graph.build import Build, WeightView
from ..graph.decoder_graph import build_prefill
from ..graph.forms.providers import CPU
from ..graph.graph_writer import GraphWriter, Opset
from ..job import ExportJob
from ..proof.drive import GraphDriver

SMOOTHING_TOKENS = 256
_ALPHA = 0.5
# A channel that is silent on this text is not divided by next to nothing.
_SMALLEST = 1e-2
GRAPH = "prefill.onnx"
# Bytes of int8 weights up to which a bundle has the graph unless it is asked to do without. Where the cache
# of a device does not hold them, as on a first run, they are made in memory: for a gigabyte six seconds of a
# core and, until the graph is open, 2.6 GB. More than that is no default for devices.
LARGEST = 1_000_000_000


def has_prefill(job: ExportJob) -> bool:
    """Whether the bundle gets a prefill graph: where there is anything to gain, and the job asks for it or
    leaves it to the size.
    """
    made = int8_bytes(job)
    return made > 0 and (job.prefill == "int8" or (job.prefill is None and made <= LARGEST))


def too_large(job: ExportJob) -> str:
    """A sentence about a prefill graph that is left out for its size; "" where none is."""
    made = int8_bytes(job)
    if job.prefill is not None or made <= LARGEST:
        return ""
    return (
        f"no prefill graph: a device would hold {made / 1e9:.1f} GB of int8 weights for it, and more than "
        f"{LARGEST / 1e9:.0f} GB are made only when asked for, with --prefill int8"
    )


def int8_bytes(job: ExportJob) -> int:
    """Of the weights that a device would make for a prefill graph: a byte for each of a linear of which the
    weights alone are quantized, in the form of the CPU.
    """
    source = job.source
    if source.anatomy.kind != "decoder" or job.as_float or job.form != CPU:
        return 0
    found = [(linear, source.schemes.get(linear.name)) for linear in source.anatomy.linears()]
    return sum(
        linear.out_features * linear.in_features
        for linear, scheme in found
        if scheme is not None and not scheme.activations
    )


def write_prefill(
    view: WeightView, opset: Opset, model: Path, ids: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Write the graph beside ``model``, which has been written; returns the manifest's section about it.

    ``ids [1, seq]`` are tokens of some text: the peaks of the channels of norms are found on them, and such
    norms are smoothed.

    Raises:
        OutOfResource: the disk is full.
    """
    graph = GraphWriter(f"{view.anatomy.model_type or view.anatomy.kind} prefill")
    smooth = {} if ids is None else smoothing_factors(model, _smoothable(view), ids)
    build = Build(graph, view, smooth=smooth, prepacked=[])
    build_prefill(build)
    assert build.prepacked is not None
    built, stored = graph.model(opset), ir.load(model).graph.initializers
    made = {linear.name + part for linear in build.prepacked for part in (INT8_CODES, INT8_SCALES)}
    for name, value in built.graph.initializers.items():
        if name in made:
            value.const_value = _elsewhere(value, model.parent)
        elif name in stored:
            value.const_value = stored[name].const_value
    path = model.with_name(GRAPH)
    with disk_full_is_typed(path):
        ir.save(built, path)
    return section(build.prepacked)


def _smoothable(view: WeightView) -> list[str]:
    """The norms that feed nothing but linears of which the weights alone are quantized."""
    feeds: dict[str, list[Linear]] = {}
    for block in view.anatomy.blocks:
        feeds.setdefault(block.norm1.name, []).extend(block.attention.projections)
        if block != view.anatomy.blocks[-1]:  # of the last, only keys and values are computed
            inner = [linear for linear in (block.mlp.gate, block.mlp.up) if linear is not None]
            feeds.setdefault(block.norm2.name, []).extend(inner)
    schemes = {norm: [view.scheme(linear.name) for linear in linears] for norm, linears in feeds.items()}
    return [
        norm
        for norm, found in schemes.items()
        if all(scheme is not None and not scheme.activations for scheme in found)
    ]


def section(linears: list[PrepackedLinear]) -> dict[str, Any]:
    """``prefill`` in the manifest: the graph, and the weights that are prepacked on the device, in bytes."""
    made = sum(linear.out * linear.columns for linear in linears)
    return {"file": GRAPH, "made_bytes": made, "linears": [asdict(linear) for linear in linears]}


def _elsewhere(value: ir.Value, folder: Path) -> ir.ExternalTensor:
    assert value.dtype is not None and value.const_value is not None
    return ir.ExternalTensor(
        location=f"{GRAPH}.data",
        offset=0,
        length=value.const_value.nbytes,
        dtype=value.dtype,
        shape=ir.Shape(value.const_value.shape),
        name=str(value.name),
        base_dir=folder,
    )


def smoothing_factors(
    model: Path, norms: Sequence[str], ids: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Factors ``[hidden]`` with a geometric mean of one by norm, from a run of the graph ``model``."""
    if not norms:  # a session that is to return no output returns all of them
        return {}
    found = {}
    for name, values in _outputs(model, norms, ids).items():
        peaks = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
        peaks = np.maximum(peaks, _SMALLEST * peaks.max())
        logarithms = _ALPHA * np.log(np.where(peaks > 0, peaks, 1))
        found[name] = np.exp(logarithms - logarithms.mean()).astype(np.float32)
    return found


def _outputs(model: Path, norms: Sequence[str], ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """What the ``norms`` put out for ``ids [1, seq]``."""
    graph, path = ir.load(model), model.with_name("peaks.onnx")
    wanted = {node.name: node.outputs[0] for node in graph.graph if node.name in set(norms)}
    for value in wanted.values():
        value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.graph.outputs.append(value)
    try:
        ir.save(graph, path)
        session = open_session(path)
    finally:
        path.unlink(missing_ok=True)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        **GraphDriver(session).empty_cache(1, ids.shape[1]),
    }
    names = [str(value.name) for value in wanted.values()]
    return dict(zip([str(name) for name in wanted], session.run(names, feeds), strict=True))
