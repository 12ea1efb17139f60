"""W8A8 linears: activations are quantized on the fly, the product is of integers.

Per token: ``scale = absmax / 127.5``, codes round half to even, as the torch model of the checkpoint does.
With static activations the scale is a constant, and nothing is left to do after the product.
The activation codes are stored with a zero point of 128, since only uint8 × int8 has a fast kernel on x86.
That kernel is exact with VNNI; x86 with AVX2 alone adds pairs of products in 16 bits, which saturates.
uint8 × uint8 is exact everywhere, at a fifth of the speed with AMX. So a graph has both forms of a product,
and tries the largest codes: ONNX Runtime computes that while it loads the graph, and keeps the form that is
exact there. No client has to set an option.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError
from ....runtime.bundle.graph_file import EITHER, PROBE, UNSIGNED
from ..build import Build
from ..graph_writer import Array

# Smaller scales are raised to this, so that a token of zeros does not divide by zero.
SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


def integer_product(
    build: Build,
    value: ir.Value,
    linears: Sequence[Linear],
    scheme: Scheme,
    name: str,
    bias: ir.Value | None,
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias`` with both operands in 8 bits."""
    if scheme.group_size is not None:
        raise ShapeError(
            f"{linears[0].name}: {scheme.name} has a weight scale per group",
            why="an integer product needs one per channel",
            fix="compress with W8A8, without a group size",
        )
    graph, width = build.graph, sum(linear.out_features for linear in linears)

    def concatenated(part: str) -> Array:
        parts = [getattr(_checked(build.weights.quantized(linear.name)), part).numpy() for linear in linears]
        return np.concatenate(parts)

    weight_shape = [linears[0].in_features, width]
    weight = graph.weight(f"{name}.codes", ir.DataType.INT8, weight_shape, lambda: concatenated("codes").T)
    stored = [
        weight,
        graph.weight(f"{name}.scales", ir.DataType.FLOAT, [width], lambda: concatenated("scale")[:, 0]),
    ]
    if not scheme.symmetric:
        zeros = f"{name}.zero_points"
        stored.append(
            graph.weight(zeros, ir.DataType.INT8, [width], lambda: concatenated("zero_point")[:, 0])
        )
    if scheme.calibrated:
        return _static_product(build, value, stored, name, linears, bias)
    return _product(build, value, stored, name, linears[0].in_features, bias)


def _static_product(
    build: Build,
    value: ir.Value,
    stored: Sequence[ir.Value],
    name: str,
    linears: Sequence[Linear],
    bias: ir.Value | None,
) -> ir.Value:
    """The product with one scale for all tokens, that of the layers' common inputs."""
    graph = build.graph
    found = {build.weights.quantized(linear.name).input_scale for linear in linears}
    if len(found) > 1 or None in found:
        raise ShapeError(
            f"{linears[0].name} and those that read the same inputs differ in their input scales: {found}",
            fix="compress with one pass for all of them",
        )
    if value not in build.int8_inputs:
        scale = graph.constant(f"{name}.input_scale", np.array(found.pop(), np.float32))
        codes = graph.node(
            "QuantizeLinear", f"{value.name}.int8.codes", [value, scale, _activation_zero(build)]
        )
        build.int8_inputs[value] = (codes, scale)
    codes, scale = build.int8_inputs[value]
    product = _exact_product(build, codes, scale, stored, name)
    return product if bias is None else graph.node("Add", f"{name}.add_bias", [product, bias])


def _product(
    build: Build, value: ir.Value, stored: Sequence[ir.Value], name: str, width: int, bias: ir.Value | None
) -> ir.Value:
    """``stored`` are codes ``[in, out]`` int8, scales ``[out]``, and zero points or none."""
    graph = build.graph
    codes, token_scale = _quantized_input(build, value, width)
    one = graph.constant("int8.one", np.ones((), np.float32))
    product = _exact_product(build, codes, one, stored, name)
    scaled = graph.node("Mul", f"{name}.token_scale", [product, token_scale])
    return scaled if bias is None else graph.node("Add", f"{name}.add_bias", [scaled, bias])


def _exact_product(
    build: Build, codes: ir.Value, scale: ir.Value, stored: Sequence[ir.Value], name: str
) -> ir.Value:
    """That of the weights as they are where it is exact, else that of weights and zero points 128 higher."""
    graph, zero = build.graph, _activation_zero(build)
    weight, scales, *zeros = stored

    def product(label: str, weight: ir.Value, zeros: Sequence[ir.Value]) -> list[ir.Value]:
        inputs = [codes, weight, scale, scales, zero, *zeros]
        return [graph.contrib("MatMulIntegerToFloat", label, inputs)]

    def raised(part: str, value: ir.Value) -> ir.Value:
        label = f"{name}.{UNSIGNED}.{part}"
        as_bytes = graph.node("Cast", f"{label}.bytes", [value], to=ir.DataType.UINT8)
        return graph.node("BitwiseXor", label, [as_bytes, zero])

    def unsigned() -> list[ir.Value]:
        weights = raised("codes", weight)
        return product(f"{name}.{UNSIGNED}", weights, [raised("zeros", one) for one in zeros] or [zero])

    if build.int8_exact is None:
        build.int8_exact = graph.before_all(lambda: _products_are_exact(build))
    branches = (lambda: product(name, weight, zeros), unsigned)
    return graph.either(f"{name}.{EITHER}", build.int8_exact, branches)[0]


def _products_are_exact(build: Build) -> ir.Value:
    """A bool: whether the processor that runs the graph adds products of the largest codes without loss."""
    graph = build.graph
    rows = graph.constant("int8.largest_inputs", np.full((2, 4), 255, np.uint8))
    column = graph.constant("int8.largest_weights", np.full((4, 1), 127, np.int8))
    total = graph.node(
        "ReduceSum",
        f"{PROBE}.sum",
        [graph.node("MatMulInteger", f"{PROBE}.product", [rows, column])],
        keepdims=0,
    )
    want = graph.constant("int8.largest_sum", np.array(8 * 255 * 127, np.int32))
    return graph.node("Equal", PROBE, [total, want])


def _checked(tensor: QTensor) -> QTensor:
    assert tensor.scale.shape[1] == 1
    return tensor


def _activation_zero(build: Build) -> ir.Value:
    return build.graph.constant("int8.activation_zero", np.array(128, np.uint8))


def _quantized_input(build: Build, value: ir.Value, width: int) -> tuple[ir.Value, ir.Value]:
    """Codes ``[…, width]`` uint8 and scale ``[…, 1]`` of ``value``; computed once for all that read it."""
    if value not in build.int8_inputs:
        graph, name = build.graph, f"{value.name}.int8"
        last = graph.constant("int8.last_axis", np.array([-1], np.int64))
        absmax = graph.node("ReduceMax", f"{name}.max", [graph.node("Abs", f"{name}.abs", [value]), last])
        levels = graph.constant("int8.levels", np.array(127.5, np.float32))
        smallest = graph.constant("int8.smallest_scale", np.array(SMALLEST_SCALE))
        scale = graph.node(
            "Max", f"{name}.scale", [graph.node("Div", f"{name}.step", [absmax, levels]), smallest]
        )
        if build.int8_zeros is None:
            shape = graph.node("Shape", f"{name}.shape", [scale])
            build.int8_zeros = graph.node("Expand", f"{name}.zeros", [_activation_zero(build), shape])
        zeros = build.int8_zeros
        codes = graph.node(
            "QuantizeLinear", f"{name}.codes", [value, scale, zeros], axis=-1, block_size=width
        )
        build.int8_inputs[value] = (codes, scale)
    return build.int8_inputs[value]
