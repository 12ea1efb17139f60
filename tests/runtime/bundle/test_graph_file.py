"""An ONNX file read without the onnx package, against that package."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from edgepress.errors import BundleError
from edgepress.runtime.bundle.graph_file import GraphFile, Node
from onnx import TensorProto, helper

from .nested import nested_graphs

BITS = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.INT64: 64,
    TensorProto.UINT8: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}


def branch(name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None)
    node = helper.make_node("Softmax", ["x"], [f"{name}.out"], name=f"{name}.softmax", axis=-1)
    weight = helper.make_tensor(f"{name}.weight", TensorProto.FLOAT, [2, 3], [0.0] * 6)
    return helper.make_graph([node], name, [], [output], [weight])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A graph with a subgraph, an input left out, an attribute below zero, and weights of several types."""
    weights = [
        helper.make_tensor(f"w{kind}", kind, [3, 5], bytes(-(-15 * bits // 8)), raw=True)
        for kind, bits in BITS.items()
    ]
    nodes = [
        helper.make_node("Clip", ["x", "", "w1"], ["clipped"], name="clip"),
        helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch("a"), else_branch=branch("b")),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_nodes_of_the_graph_and_of_its_subgraphs(saved: Path) -> None:
    graph = GraphFile.read(saved)
    assert {name: node.op for name, node in graph.nodes.items()} == {
        "clip": "Clip",
        "if": "If",
        "a.softmax": "Softmax",
        "b.softmax": "Softmax",
    }
    assert graph.nodes["clip"].inputs == ("x", "", "w1")
    assert graph.nodes["a.softmax"].attributes == {"axis": -1}


def test_weights_have_their_shapes_and_bytes(saved: Path) -> None:
    weights = GraphFile.read(saved).weights
    for kind, bits in BITS.items():
        found = weights[f"w{kind}"]
        assert (found.shape, found.bits, found.nbytes) == ((3, 5), bits, -(-15 * bits // 8))
    assert weights["b.weight"].nbytes == 24


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x05"])
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        GraphFile.read(path)


@pytest.mark.parametrize("depth", [33, 5000])
def test_a_graph_that_is_nested_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "model.onnx"
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.0] * 2).SerializeToString()
    path.write_bytes(nested_graphs(32, tensor))
    assert GraphFile.read(path).weights["w"].shape == (2,)
    path.write_bytes(nested_graphs(depth, tensor))
    with pytest.raises(BundleError, match="not a readable ONNX model") as refused:
        GraphFile.read(path)
    assert "nested deeper than 100" in refused.value.why


@pytest.mark.parametrize("dims", [[2] * 65, [-1], [3, 1 << 62, -(1 << 63)]])
def test_a_weight_without_a_size_is_refused(tmp_path: Path, dims: list[int]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested_graphs(0, TensorProto(name="w", data_type=1, dims=dims).SerializeToString()))
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        GraphFile.read(path)


@pytest.mark.parametrize("raw", [True, False])
def test_short_rows_of_integers_have_values(tmp_path: Path, raw: bool) -> None:
    rows = {"sizes": [64, 32, 32], "signed": [-1, 1 << 40], "long": list(range(65))}
    weights = [
        helper.make_tensor(
            name, TensorProto.INT64, [len(row)], np.array(row, "<i8").tobytes() if raw else row, raw=raw
        )
        for name, row in rows.items()
    ]
    weights.append(helper.make_tensor("floats", TensorProto.DOUBLE, [1], bytes(8), raw=True))
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], weights)), tmp_path / "model.onnx")
    read = GraphFile.read(tmp_path / "model.onnx").weights
    assert read["sizes"].values == (64, 32, 32) and read["signed"].values == (-1, 1 << 40)
    assert read["floats"].values == ()
    assert read["long"].shape == (65,)
    assert not raw or read["long"].values == ()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        GraphFile.read(tmp_path / "none.onnx")


def test_of_two_forms_of_a_product_the_first_is_told() -> None:
    nodes = {
        "int8.products_are_exact": Node("Equal", ("a", "b"), {}, ("exact",)),
        "q": Node("MatMulIntegerToFloat", ("x", "w"), {}, ("q/0",)),
        "q.unsigned.codes": Node("BitwiseXor", ("w", "zero"), {}, ("u",)),
        "q.unsigned": Node("MatMulIntegerToFloat", ("x", "u"), {}, ("v",)),
        "q.either": Node("If", ("exact",), {}, ("y",)),
        "add": Node("Add", ("y", "z"), {}, ("sum",)),
    }
    product = Node("MatMulIntegerToFloat", ("x", "w"), {}, ("y",))
    assert GraphFile(nodes).first_forms() == {"q": product, "add": nodes["add"]}
