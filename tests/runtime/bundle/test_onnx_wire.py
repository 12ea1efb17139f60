"""The walk over an ONNX file finds every external location, and hostile bytes only give typed errors."""

import random
from pathlib import Path

import onnx
import pytest
from edgepress.errors import BundleError
from edgepress.runtime.bundle.onnx_wire import external_locations
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

from .nested import nested_graphs

pytestmark = pytest.mark.chain


def _external(location: str) -> TensorProto:
    tensor = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def _everywhere() -> ModelProto:
    """A model with an external tensor in each place that the format allows."""
    inner = GraphProto(name="inner", initializer=[_external("in-a-subgraph")])
    sparse = onnx.SparseTensorProto(values=_external("sparse-values"), indices=_external("sparse-indices"))
    node = helper.make_node("If", ["x"], ["y"], value=_external("in-an-attribute"), then_branch=inner)
    node.attribute.append(
        AttributeProto(name="many", type=AttributeProto.TENSORS, tensors=[_external("in-a-list")])
    )
    node.attribute.append(
        AttributeProto(
            name="graphs",
            type=AttributeProto.GRAPHS,
            graphs=[GraphProto(name="listed", initializer=[_external("in-a-listed-graph")])],
        )
    )
    graph = GraphProto(name="g", node=[node], initializer=[_external("plain")], sparse_initializer=[sparse])
    model = ModelProto(ir_version=10, graph=graph)
    constant = helper.make_node("Constant", [], ["c"], value=_external("in-a-function"))
    model.functions.append(onnx.FunctionProto(name="f", domain="d", node=[constant]))
    model.training_info.add().algorithm.initializer.append(_external("in-training"))
    return model


def test_every_place_is_searched(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(_everywhere().SerializeToString())
    assert external_locations(path) == dict.fromkeys(
        (
            "plain",
            "in-a-subgraph",
            "in-an-attribute",
            "in-a-list",
            "in-a-listed-graph",
            "in-a-function",
            "in-training",
            "sparse-values",
            "sparse-indices",
        ),
        16,
    )


def test_a_real_bundle_names_its_data_file(decoder_bundle: Path) -> None:
    assert set(external_locations(decoder_bundle / "model.onnx")) == {"model.onnx.data"}


@pytest.mark.parametrize("data", [b"", b"\xff" * 30, b"\x3a\xff\x01", b"\x0b"])
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        external_locations(path)


@pytest.mark.parametrize("depth", [33, 100_000])
def test_a_graph_that_is_nested_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(nested_graphs(depth, _external("w").SerializeToString()))
    with pytest.raises(BundleError, match="not a readable ONNX model") as refused:
        external_locations(path)
    assert "nested deeper than 100" in refused.value.why


def test_a_graph_that_is_nested_as_deep_as_protobuf_reads_is_read(tmp_path: Path) -> None:
    path, inner = tmp_path / "m.onnx", _external("w").SerializeToString()
    path.write_bytes(nested_graphs(32, inner))
    assert external_locations(path) == {"w": 16}
    model = ModelProto.FromString(path.read_bytes())
    assert model.graph.node[0].attribute[0].g.node[0].attribute[0].HasField("g")
    with pytest.raises(DecodeError):
        ModelProto.FromString(nested_graphs(33, inner))


def test_mutations_never_escape_the_error_type(tmp_path: Path) -> None:
    source = _everywhere().SerializeToString()
    generator = random.Random(0)
    path = tmp_path / "m.onnx"
    refused = 0
    for _ in range(2000):
        data = bytearray(source[: generator.choice([len(source), generator.randrange(1, len(source))])])
        for _ in range(generator.randrange(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            external_locations(path)
        except BundleError:
            refused += 1
    assert 0 < refused < 2000
