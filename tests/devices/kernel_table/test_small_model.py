"""Small models written without the onnx package, against that package and numpy."""

from pathlib import Path

import numpy as np
import onnx
from edgepress.devices.kernel_table.small_model import FLOAT, SmallModel, Tensor
from edgepress.runtime.bundle.graph_file import GraphFile
from edgepress.runtime.session.session import open_session


def product(folder: Path) -> Path:
    """``x [2, 3] · w [4, 3]ᵀ`` with weights in a file beside it."""
    weights = np.arange(12, dtype=np.float32)
    (folder / "weights.bin").write_bytes(b"\0" * 64 + weights.tobytes())
    model = SmallModel("weights.bin")
    model.inputs["x"] = Tensor(FLOAT, (2, 3))
    model.weights["w"] = Tensor(FLOAT, (4, 3), 48, 64)
    attributes = {"transA": 0, "transB": 1, "alpha": 0.5}
    model.node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", attributes=attributes)
    model.outputs["y"] = Tensor(FLOAT, None)
    (folder / "model.onnx").write_bytes(model.serialized())
    return folder / "model.onnx"


def test_onnx_reads_what_was_meant(tmp_path: Path) -> None:
    graph = onnx.load(product(tmp_path)).graph
    (node,) = graph.node
    assert (node.op_type, node.domain, list(node.input)) == ("FusedMatMul", "com.microsoft", ["x", "w"])
    assert {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute} == {
        "transA": 0,
        "transB": 1,
        "alpha": 0.5,
    }
    assert onnx.numpy_helper.to_array(graph.initializer[0]).tolist() == np.arange(12).reshape(4, 3).tolist()


def test_our_reader_reads_it_with_its_outputs(tmp_path: Path) -> None:
    graph = GraphFile.read(product(tmp_path))
    assert graph.nodes["y"].outputs == ("y",) and graph.weights["w"].shape == (4, 3)


def test_it_runs(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (found,) = open_session(product(tmp_path), threads=1).run(None, {"x": x})
    assert found.tolist() == (0.5 * x @ np.arange(12).reshape(4, 3).T).tolist()


def test_words_as_attributes(tmp_path: Path) -> None:
    model = SmallModel()
    model.node("Anything", ["x"], ["y"], attributes={"how": "PER_CHANNEL", "below": -1})
    (node,) = onnx.ModelProto.FromString(model.serialized()).graph.node
    assert {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute} == {
        "how": b"PER_CHANNEL",
        "below": -1,
    }
