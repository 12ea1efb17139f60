"""Graphs are written with one weight in memory at a time, and large ones keep their weights outside."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.errors import CheckpointError
from edgepress.export.graph import whole_graph
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.graph_writer import GraphWriter, Opset
from edgepress.export.graph.whole_graph import build_graph
from edgepress.export.proof.drive import GraphDriver
from edgepress.runtime.bundle.onnx_wire import external_locations
from edgepress.runtime.session.session import open_session
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


IDS = np.arange(12)[None]


def written(model: ir.Model, path: Path, nbytes: int) -> None:
    with Silent().task("", nbytes) as task:
        whole_graph.save_graph(model, path, nbytes, task)


def test_nothing_is_read_before_saving(pico_llama: Path, export_graph: Any, opset: Opset) -> None:
    source = export_graph(pico_llama, "W4A16-g32").source

    def refuse(_: str) -> Any:
        raise AssertionError("a weight was read while the graph was built")

    source.linear = source.tensor = source.table = source.bias = refuse
    assert build_graph(WeightView(source), opset).nbytes > 0


def test_one_weight_at_a_time(tmp_path: Path, opset: Opset) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def make() -> np.ndarray:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        array = np.zeros((64, 1024), np.float32)
        alive.append(weakref.ref(array))
        return array

    graph = GraphWriter("many")
    total = graph.input("x", ir.DataType.FLOAT, [64, 1024])
    for index in range(20):
        weight = graph.weight(f"w{index}", ir.DataType.FLOAT, [64, 1024], make)
        total = graph.node("Add", f"add{index}", [total, weight])
    graph.output(total, "y", ir.DataType.FLOAT, [64, 1024])
    written(graph.model(opset), tmp_path / "many.onnx", sum(graph.nbytes.values()))
    assert len(alive) == 20
    assert most <= 1


def test_large_graphs_keep_their_weights_outside(
    pico_llama: Path, export_graph: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = export_graph(pico_llama, "W4A16-g32")
    assert external_locations(small.path) == {}
    with small.driver() as driver:
        want = driver.logits(IDS)
    monkeypatch.setattr(whole_graph, "EXTERNAL_FROM", 0)
    large = export_graph(pico_llama, "W4A16-g32")
    assert external_locations(large.path) == {
        "model.onnx.data": large.path.with_name("model.onnx.data").stat().st_size
    }
    assert large.path.stat().st_size < small.built.nbytes // 2
    found = GraphDriver(open_session(large.path, threads=1)).logits(IDS)
    np.testing.assert_array_equal(found, want)


def test_the_same_checkpoint_gives_the_same_bytes(pico_llama: Path, export_graph: Any) -> None:
    first = export_graph(pico_llama, "W4A16-g32", "W8A16-g32").path.read_bytes()
    assert export_graph(pico_llama, "W4A16-g32", "W8A16-g32").path.read_bytes() == first


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("rows", [2, 2000])
def test_errors_of_reading_come_out_as_they_are(
    limit: int, rows: int, tmp_path: Path, opset: Opset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_graph, "EXTERNAL_FROM", limit)

    def broken() -> np.ndarray:
        raise CheckpointError("tensor w holds NaN")

    graph = GraphWriter("broken")
    weight = graph.weight("w", ir.DataType.FLOAT, [rows, 3], broken)
    value = graph.input("x", ir.DataType.FLOAT, [rows, 3])
    graph.output(graph.node("Add", "add", [value, weight]), "y", ir.DataType.FLOAT, [rows, 3])
    with pytest.raises(CheckpointError, match="holds NaN"):
        written(graph.model(opset), tmp_path / "broken.onnx", graph.nbytes["w"])


def test_a_weight_of_the_wrong_shape_is_a_bug_that_is_seen(tmp_path: Path, opset: Opset) -> None:
    graph = GraphWriter("wrong")
    weight = graph.weight("w", ir.DataType.FLOAT, [2, 3], lambda: np.zeros((3, 2), np.float32))
    value = graph.input("x", ir.DataType.FLOAT, [2, 3])
    graph.output(graph.node("Add", "add", [value, weight]), "y", ir.DataType.FLOAT, [2, 3])
    with pytest.raises(AssertionError, match="w has shape"):
        written(graph.model(opset), tmp_path / "wrong.onnx", 24)
