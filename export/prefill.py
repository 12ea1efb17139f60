"""The prefill graph of a decoder bundle: nodes only, a few hundred bytes each, and no weights of its own.

Its products of 8-bit integers have weights that the device makes of the bundle's (see
:mod:`edgepress.runtime.remade`); everything else is read from the file of the model's own graph.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..runtime.remade import REMADE_CODES, REMADE_SCALES, RemadeLinear
from ..storage import disk_full_is_typed
from .graph.build import Build
from .graph.decoder import build_prefill
from .graph.view import WeightView
from .graph.writer import GraphWriter
from .job import ExportJob
from .opset import Opset
from .providers import CPU

GRAPH = "prefill.onnx"


def has_prefill(job: ExportJob) -> bool:
    """Whether the job asks for a prefill graph and there is anything to gain: a linear of which the weights
    alone are quantized, in the form of the CPU.
    """
    weights_only = any(not scheme.activations for scheme in job.source.schemes.values())
    decodes = job.source.anatomy.kind == "decoder"
    return job.prefill and decodes and weights_only and not job.as_float and job.form == CPU


def write_prefill(view: WeightView, opset: Opset, model: Path) -> dict[str, Any]:
    """Write the graph beside ``model``, which has been written; returns the manifest's section about it.

    Raises:
        OutOfResource: the disk is full.
    """
    graph = GraphWriter(f"{view.anatomy.model_type or view.anatomy.kind} prefill")
    build = Build(graph, view, remade=[])
    build_prefill(build)
    assert build.remade is not None
    built, stored = graph.model(opset), ir.load(model).graph.initializers
    made = {linear.name + part for linear in build.remade for part in (REMADE_CODES, REMADE_SCALES)}
    for name, value in built.graph.initializers.items():
        if name in made:
            value.const_value = _elsewhere(value, model.parent)
        elif name in stored:
            value.const_value = stored[name].const_value
    path = model.with_name(GRAPH)
    with disk_full_is_typed(path):
        ir.save(built, path)
    return section(build.remade)


def section(linears: list[RemadeLinear]) -> dict[str, Any]:
    """``prefill`` in the manifest: the graph, and which weights the device makes, of how many bytes."""
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
