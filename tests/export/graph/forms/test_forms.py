"""Graphs in the forms of providers: the same numbers as the CPU's form, in fewer or other operators."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from edgepress.errors import CheckpointError, ShapeError
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.forms.providers import FORMS, ProviderForm, to_float16
from edgepress.export.graph.forms.qdq import unpacked
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.graph.linear.nbits import packed
from edgepress.export.graph.whole_graph import build_graph, save_graph
from edgepress.export.proof.drive import GraphDriver
from edgepress.runtime.session.session import open_session
from edgepress.terminal.progress import Silent
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(0).integers(3, 300, (3, 33), dtype=np.int64)
EXACT = {"session.qdq_matmulnbits_accuracy_level": "0"}
QDQ32, QDQ16, CUDA = FORMS["openvino"], FORMS["tensorrt"], FORMS["cuda"]


@pytest.fixture
def write(tmp_path: Path, opset: Opset, export_graph: Callable[..., Any]) -> Callable[..., Path]:
    """Write the graph of a checkpoint in a form; the CPU's form of the same weights lies beside it."""

    def make(checkpoint: Path, form: ProviderForm, scheme: Any, embedding: str | None = None) -> Path:
        exported = export_graph(checkpoint, scheme, embedding)
        view = WeightView(exported.source, kv_dtype=form.dtype)
        built = build_graph(view, opset, form=form)
        path = tmp_path / f"{form.name}.onnx"
        with Silent().task("", built.nbytes) as task:
            save_graph(built.model, path, built.nbytes, task)
        assert built.nbytes >= built.bytes_per_token > 0
        return path

    return make


@contextmanager
def exact(path: Path) -> Iterator[GraphDriver]:
    """A driver without int8 activations."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    changed = path.with_name(f"exact-{path.name}")
    ir.save(model, changed)
    yield GraphDriver(open_session(changed, threads=1, config=EXACT))


def check_structure(path: Path) -> None:
    """onnx's own checker and shape inference, which know all but one operator."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"
    onnx.checker.check_model(model, full_check=True)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(path).graph)


@given(st.sampled_from([2, 4, 8]), st.data())
def test_unpacking_is_the_inverse_of_packing(bits: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 6)) * (8 // bits)
    codes = np.array(
        data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=width, max_size=width)), np.uint8
    )
    assert (unpacked(packed(codes[None], bits), bits) == codes).all()


@pytest.mark.parametrize(
    ("scheme", "embedding"),
    [
        ("W4A16-g32", "W8A16-g32"),
        ("W4A16_ASYM-g32", "W4A16_ASYM-g32"),
        ("W8A16-g16", "W4A16-g32"),
        ("W3A16-g32", None),
        ("W5A16-g32", "W6A16-g32"),
        ("W2A16-g32", None),
    ],
)
def test_standard_operators_compute_the_same(
    pico_llama: Path, write: Callable[..., Path], scheme: str, embedding: str | None
) -> None:
    path = write(pico_llama, QDQ32, scheme, embedding)
    cpu = path.with_name("model.onnx")
    with exact(cpu) as ours, exact(path) as theirs:
        for ids, depth in ((IDS, 0), (IDS[:1], 5)):
            expected, found = ours.logits(ids, depth=depth), theirs.logits(ids, depth=depth)
            np.testing.assert_allclose(found, expected, atol=2e-5)
    kinds = operators(path)
    assert not kinds["MatMulNBits"] and not kinds["GatherBlockQuantized"] and kinds["DequantizeLinear"]
    check_structure(path)
    own = {node.op_type for node in ir.load(path).graph if node.domain}
    assert own == {"GroupQueryAttention"}


def test_onnxruntime_makes_of_it_what_it_was(
    pico_llama: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(pico_llama, QDQ32, "W4A16-g32", "W8A16-g32")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    products = operators(path)["MatMul"]
    fused = operators(tmp_path / "optimized.onnx")
    assert products == 3 * 4 + 1  # qkv, o, gate_up and down of three layers, and the head
    assert fused["MatMulNBits"] == products
    assert fused["DequantizeLinear"] == 1  # of the rows that are looked up


@pytest.mark.parametrize("form", [CUDA, QDQ16])
def test_half_precision_stays_near(pico_llama: Path, write: Callable[..., Path], form: ProviderForm) -> None:
    path = write(pico_llama, form, "W4A16-g32", "W8A16-g32")
    model = ir.load(path)
    floats = [
        value.name
        for value in [*model.graph.inputs, *model.graph.outputs]
        if value.dtype == ir.DataType.FLOAT
    ]
    stored = [name for name, value in model.graph.initializers.items() if value.dtype == ir.DataType.FLOAT]
    assert floats == stored == []
    assert operators(path)["Cast"] == 4  # of integers: three of the mask's, and logits_to_keep
    check_structure(path)
    with exact(path.with_name("model.onnx")) as ours, exact(path) as theirs:
        expected, found = ours.logits(IDS), theirs.logits(IDS).astype(np.float32)
    assert np.isfinite(found).all()
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_gated_and_plain_families_take_every_form(
    make_decoder: Callable[..., Path], write: Callable[..., Path], tmp_path: Path
) -> None:
    for family in ("gpt2", "qwen3", "gemma2"):
        checkpoint = make_decoder(tmp_path / family, family)
        for form in (QDQ32, CUDA):
            path = write(checkpoint, form, "W4A16-g32")
            with exact(path.with_name("model.onnx")) as ours, exact(path) as theirs:
                expected, found = ours.logits(IDS), theirs.logits(IDS).astype(np.float32)
            assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max(), (family, form.name)


def test_what_does_not_fit_float16_is_refused() -> None:
    def halved(largest: float) -> Any:
        weight = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT))
        weight.const_value = ir.tensor(np.array([largest, 1e-9], np.float32), name="w")
        model = ir.Model(ir.Graph([], [], nodes=[], initializers=[weight]), ir_version=10)
        to_float16(model, {})
        found = model.graph.initializers["w"].const_value
        assert found is not None
        return found.numpy()

    assert halved(65504.0)[0] == 65504
    with pytest.raises(CheckpointError, match="w does not fit float16"):
        halved(70000.0)


def test_blocks_that_do_not_divide_are_refused(
    make_decoder: Callable[..., Path], write: Callable[..., Path], tmp_path: Path
) -> None:
    odd = make_decoder(tmp_path / "odd", intermediate_size=136)
    with pytest.raises(ShapeError, match="whole blocks"):
        write(odd, QDQ32, lambda linear: "W4A16-channel" if linear.role == "down" else None)
