"""Each kind of linear, alone in a graph, against dequantize-then-multiply."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.numbers.fake_quant import quantize_tokens
from edgepress.errors import ShapeError
from edgepress.export.graph.linear import integer
from edgepress.export.graph.linear.linear import project, project_without_bias

ROLES = ("q", "k", "v")
WEIGHT_ONLY = [
    f"W{bits}A16{asym}-{group}"
    for bits in (2, 3, 4, 5, 6, 8)
    for asym in ("", "_ASYM")
    for group in ("g16", "g32", "g64", "channel")
]


def linears_of(
    matrices: Any, schemes: list[str | None], sizes: list[int], width: int, bias: list[bool]
) -> tuple[Any, list[Linear]]:
    generator = torch.Generator().manual_seed(7)
    tensors: dict[str, torch.Tensor] = {}
    for role, size, biased in zip(ROLES, sizes, bias, strict=False):
        tensors[f"{role}.weight"] = torch.randn(size, width, generator=generator)
        if biased:
            tensors[f"{role}.bias"] = torch.randn(size, generator=generator)
    named = {role: scheme for role, scheme in zip(ROLES, schemes, strict=False) if scheme}
    linears = [
        Linear(role, role, size, width, biased)  # type: ignore[arg-type]
        for role, size, biased in zip(ROLES, sizes, bias, strict=False)
    ]
    return matrices(tensors, named), linears


def expected(source: Any, linears: list[Linear], x: np.ndarray) -> np.ndarray:
    parts = []
    for linear in linears:
        rows = torch.from_numpy(x)
        scheme = source.schemes.get(linear.name)
        if scheme is not None and scheme.activations:
            rows = quantize_tokens(rows)
        parts.append(torch.nn.functional.linear(rows, source.dense(linear.name), source.bias(linear.name)))
    return torch.cat(parts, -1).numpy()


def rounding(source: Any, linears: list[Linear], x: np.ndarray) -> np.ndarray:
    """The largest error that inputs in 8 bits can make, ``[…, out]``: half a step of the largest of a row (of
    a block of it, less) for every input, all with the sign of the weight.
    """
    sizes = torch.cat([source.dense(linear.name).abs().sum(1) for linear in linears]).numpy()
    return np.abs(x).max(-1, keepdims=True) / 254 * sizes + 2e-4  # and the order of sums


def inputs(width: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((*shape, width)).astype(np.float32)


@pytest.mark.chain
@pytest.mark.parametrize("scheme", WEIGHT_ONLY)
def test_weight_only(scheme: str, matrices: Any, one_operation: Callable[..., Any]) -> None:
    source, linears = linears_of(matrices, [scheme] * 3, [33, 16, 7], 192, [True, False, True])
    x = inputs(192, 2, 5)
    want = expected(source, linears, x)
    exact = one_operation(source).run(
        lambda build, value: project(build, value, linears, "qkv"), x, exact=True
    )
    np.testing.assert_allclose(exact, want, atol=2e-4)
    shipped = one_operation(source).run(lambda build, value: project(build, value, linears, "qkv"), x)
    assert (np.abs(shipped - want) <= rounding(source, linears, x)).all()


@pytest.mark.parametrize("width", [1, 7, 31, 100, 257])
@pytest.mark.parametrize("scheme", ["W2A16-channel", "W4A16_ASYM-channel", "W8A16-channel", "W8A8", None])
def test_odd_widths(scheme: str | None, width: int, matrices: Any, one_operation: Callable[..., Any]) -> None:
    source, linears = linears_of(matrices, [scheme], [5], width, [True])
    x = inputs(width, 1, 3)
    found = one_operation(source).run(lambda build, value: project(build, value, linears, "q"), x)
    want = expected(source, linears, x)
    # W8A8 rounds in both; the others either do not, or in the kernel alone.
    assert (np.abs(found - want) <= rounding(source, linears, x)).all()


@pytest.mark.parametrize("scheme", ["W8A8", "W8A8_ASYM"])
def test_integer_products_are_those_of_the_torch_model(
    scheme: str, matrices: Any, one_operation: Callable[..., Any]
) -> None:
    if scheme == "W8A8_ASYM":
        source, linears = linears_of(
            matrices, ["W8A16_ASYM-channel"] * 3, [64, 32, 31], 160, [True, False, False]
        )
        source.schemes = {
            name: old.model_copy(update={"activations": "token"}) for name, old in source.schemes.items()
        }
    else:
        source, linears = linears_of(matrices, [scheme] * 3, [64, 32, 31], 160, [True, False, False])
    x = inputs(160, 3, 9) * np.array([1e-6, 1.0, 1e4], np.float32)[:, None, None]
    x[0, 0] = 0.0
    found = one_operation(source).run(lambda build, value: project(build, value, linears, "qkv"), x)
    want = expected(source, linears, x)
    # The codes are the same on every processor: a maximum, two divisions and a rounding, number by number.
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=1e-6 * np.abs(want).max(-1, keepdims=True).max())
    np.testing.assert_allclose(found[0], want[0], rtol=1e-4, atol=1e-9 + 1e-6 * float(np.abs(want[0]).max()))


def test_integer_products_do_not_saturate(matrices: Any, one_operation: Callable[..., Any]) -> None:
    # The largest codes of one sign on both sides: 16-bit partial sums would overflow.
    source = matrices({"q.weight": torch.ones(4, 256)}, {"q": "W8A8"})
    linear = Linear("q", "q", 4, 256, False)
    x = np.ones((1, 1, 256), np.float32)
    found = one_operation(source).run(lambda build, value: project(build, value, [linear], "q"), x)
    np.testing.assert_allclose(found, expected(source, [linear], x), rtol=1e-5)


@pytest.mark.parametrize("scheme", ["W8A16-channel", "W8A16_ASYM-channel"])
def test_both_forms_of_an_integer_product_are_one(
    scheme: str, matrices: Any, one_operation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, linears = linears_of(matrices, [scheme] * 2, [33, 7], 96, [True, False])
    source.schemes = {
        name: old.model_copy(update={"activations": "token"}) for name, old in source.schemes.items()
    }
    x = inputs(96, 2, 5)
    found = []
    for exact in (np.array(True), np.array(False)):  # what a graph may learn of its processor
        answer = partial(lambda exact, build: build.graph.constant("answer", exact), exact)
        monkeypatch.setattr(integer, "_products_are_exact", answer)
        found.append(one_operation(source).run(lambda build, value: project(build, value, linears, "qk"), x))
    np.testing.assert_array_equal(found[1], found[0])


def test_a_plain_client_gives_exact_integer_products(
    matrices: Any, one_operation: Callable[..., Any], tmp_path: Path
) -> None:
    # Linears of the same weights, as blocks of ALBERT have them, and no option of a session.
    source = matrices({"q.weight": torch.ones(4, 256)}, {"q": "W8A8"})
    linear, x = Linear("q", "q", 4, 256, False), np.ones((1, 1, 256), np.float32)

    def twice(build: Any, value: Any) -> Any:
        parts = [project(build, value, [linear], "q") for _ in build.graph.repeated(2)]
        return build.graph.node("Add", "sum", parts)

    one_operation(source).run(twice, x)
    (found,) = onnxruntime.InferenceSession(tmp_path / "one.onnx").run(None, {"x": x})
    np.testing.assert_allclose(found, 2 * expected(source, [linear], x), rtol=1e-5)


def test_shared_inputs_are_quantized_once(matrices: Any, one_operation: Callable[..., Any]) -> None:
    # Two products of the same input that cannot be packed, since a float layer lies between them.
    source, linears = linears_of(matrices, ["W8A8", None, "W8A8"], [8, 8, 8], 64, [False] * 3)
    operation = one_operation(source)
    x = inputs(64, 1, 4)
    found = operation.run(lambda build, value: project(build, value, linears, "qkv"), x)
    np.testing.assert_allclose(found, expected(source, linears, x), atol=1e-4)
    assert len(operation.build.int8_inputs) == 1


@pytest.mark.parametrize(
    "schemes",
    [
        ["W4A16-g32", "W4A16-g32", "W8A16-g32"],
        ["W4A16-g32", "W8A8", None],
        [None, "W2A16_ASYM-g32", "W2A16_ASYM-g32"],
    ],
)
def test_layers_of_unlike_storage_come_out_in_order(
    schemes: list[str | None], matrices: Any, one_operation: Callable[..., Any]
) -> None:
    source, linears = linears_of(matrices, schemes, [24, 8, 16], 64, [True, False, True])
    x = inputs(64, 2, 3)
    found = one_operation(source).run(
        lambda build, value: project(build, value, linears, "qkv"), x, exact="W8A8" not in schemes
    )
    want = expected(source, linears, x)
    assert (np.abs(found - want) <= (rounding(source, linears, x) if "W8A8" in schemes else 2e-4)).all()


def test_bias_is_handed_back_when_asked(matrices: Any, one_operation: Callable[..., Any]) -> None:
    source, linears = linears_of(matrices, [None] * 2, [8, 8], 32, [True, False])
    biases = []

    def add(build: Any, value: Any) -> Any:
        product, bias = project_without_bias(build, value, linears, "qk")
        biases.append(bias)
        return build.graph.node("Add", "sum", [product, bias])

    x = inputs(32, 1, 2)
    np.testing.assert_allclose(one_operation(source).run(add, x), expected(source, linears, x), atol=1e-5)
    assert biases[0] is not None


def test_integer_products_with_groups_are_refused(matrices: Any, one_operation: Callable[..., Any]) -> None:
    source, linears = linears_of(matrices, ["W8A8-g32"], [8], 64, [False])
    with pytest.raises(ShapeError, match="scale per group"):
        one_operation(source).run(lambda build, value: project(build, value, linears, "q"), inputs(64, 1, 1))
