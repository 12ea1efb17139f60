"""The graphs that a proof needs beside the one it publishes: the float twin, and the one with exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from ...terminal import Silent
from ..graph.model import build_graph
from ..graph.save import save
from ..graph.view import WeightView
from ..job import ExportJob
from ..opset import Opset

EXACT = 0  # accuracy level of MatMulNBits that computes in float32, slowly


def write_float_graph(job: ExportJob, directory: Path, opset: Opset) -> Path:
    """Write the checkpoint's graph with every weight dequantized; returns its path."""
    built = build_graph(WeightView(job.source, as_float=True), opset, job.pooling)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "float.onnx"
    with Silent().task("", built.nbytes) as task:
        save(built.model, path, built.nbytes, task)
    return path


@contextmanager
def exact_graph(graph: Path) -> Iterator[Path]:
    """A copy of ``graph`` whose ``MatMulNBits`` leave activations in float32, for as long as the context lasts.

    It lies beside the original, since the two read the same weights.
    """
    path = graph.with_name("exact.onnx")
    model = ir.load(graph)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", EXACT)
    try:
        ir.save(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
