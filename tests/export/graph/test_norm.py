"""Norms with the sum before them, against numpy; and which node computes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from edgepress.compress.model.block_anatomy import Norm
from edgepress.export.graph.build import Build
from edgepress.export.graph.norm import add_and_normalize, normalize
from edgepress.runtime.kernels.library import library

WIDTH = 48


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"norm.{part}": torch.randn(WIDTH, generator=generator) for part in ("weight", "bias")}


def reference(norm: Norm, tensors: dict[str, torch.Tensor], total: np.ndarray) -> np.ndarray:
    centred = total - total.mean(-1, keepdims=True) if norm.kind == "layer" else total
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    scaled = unit * (tensors["norm.weight"].numpy() + norm.offset)
    return scaled + tensors["norm.bias"].numpy() if norm.bias else scaled


@pytest.mark.parametrize(("kind", "with_bias"), [("layer", True), ("layer", False), ("rms", False)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("own", [False, True])
def test_sum_and_norm(
    kind: Any,
    with_bias: bool,
    biased: bool,
    which: int,
    own: bool,
    matrices: Any,
    one_operation: Callable[[Any], Any],
) -> None:
    if own and library() is None:
        pytest.skip("the library of operators was not built here")
    norm, tensors = Norm("norm", kind, eps=1e-5, bias=with_bias), weights(which)
    skip = np.random.default_rng(1).normal(size=(WIDTH,)).astype(np.float32)
    bias = np.random.default_rng(2).normal(size=(WIDTH,)).astype(np.float32)

    def add(build: Build, value: ir.Value) -> ir.Value:
        build.tiles = own
        other = build.graph.node("Add", "skip", [value, build.graph.constant("skip.value", skip)])
        given = build.graph.constant("given", bias) if biased else None
        return add_and_normalize(build, value, other, norm, given)[which]

    x = np.random.default_rng(3).normal(size=(2, 5, WIDTH)).astype(np.float32)
    total = x + (x + skip) + (bias if biased else 0)
    want = total if which else reference(norm, tensors, total)
    np.testing.assert_allclose(one_operation(matrices(tensors, {})).run(add, x), want, atol=2e-5)


@pytest.mark.parametrize("own", [False, True])
def test_a_norm_alone(own: bool, matrices: Any, one_operation: Callable[[Any], Any]) -> None:
    if own and library() is None:
        pytest.skip("the library of operators was not built here")
    norm, tensors = Norm("norm", "rms", eps=1e-5, offset=1.0), weights(0)

    def add(build: Build, value: ir.Value) -> ir.Value:
        build.tiles = own
        return normalize(build, value, norm)

    x = np.random.default_rng(3).normal(size=(2, 5, WIDTH)).astype(np.float32)
    found = one_operation(matrices(tensors, {})).run(add, x)
    np.testing.assert_allclose(found, reference(norm, tensors, x), atol=2e-5)


def test_the_runtime_leaves_the_sum_to_itself(
    tmp_path: Any, pico_bert: Any, export_graph: Callable[..., Any]
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    exported = export_graph(pico_bert)
    onnxruntime.InferenceSession(str(exported.path), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx", load_external_data=False)
    operators = {node.op_type for node in optimized.graph.node}
    assert "LayerNormalization" in operators
    assert "SkipLayerNormalization" not in operators
