"""Quantized weights in standard ONNX: ``DequantizeLinear`` by blocks, then ``MatMul`` or a look-up.

ONNX Runtime fuses such a pair into the ``MatMulNBits`` that it replaced; OpenVINO and TensorRT have their
own fusions. Codes stand as ``[in, out]``, signed without zero points or unsigned with them. The rows of an
embedding are looked up as codes and multiplied after, since OpenVINO dequantizes blocks of constants only.
Standard ``Gather`` knows no code below a byte, so that a table that is tied to the head is held a second
time, a byte a code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....errors import ShapeError
from ..graph_writer import Array, Opset
from .standard import Rewriter

INT2_OPSET = Opset(25, 13)
_TYPES = {
    (2, True): ir.DataType.INT2,
    (2, False): ir.DataType.UINT2,
    (4, True): ir.DataType.INT4,
    (4, False): ir.DataType.UINT4,
    (8, True): ir.DataType.INT8,
    (8, False): ir.DataType.UINT8,
}


@dataclass(frozen=True)
class Packed:
    """The initializers of a packed matrix ``[out, in]`` (see :mod:`.pack`) and what to make of them."""

    codes: ir.Value
    scales: ir.Value
    zeros: ir.Value | None
    bits: int
    block: int
    rows: int
    columns: int

    @property
    def blocks(self) -> int:
        """Scales of one row."""
        return self.columns // self.block

    @property
    def symmetric(self) -> bool:
        """Whether codes are signed around zero."""
        return self.zeros is None

    def read_codes(self) -> Array:
        """``[rows, columns]``, int8 when symmetric, else uint8."""
        found = unpacked(_array(self.codes).reshape(self.rows, -1), self.bits)[:, : self.columns]
        if not self.symmetric:
            return found
        return (found.astype(np.int16) - (1 << (self.bits - 1))).astype(np.int8)

    def read_scales(self) -> Array:
        """``[rows, blocks]`` float32."""
        return _array(self.scales).reshape(self.rows, -1)

    def read_zeros(self) -> Array:
        """``[rows, blocks]`` uint8."""
        assert self.zeros is not None
        return unpacked(_array(self.zeros).reshape(self.rows, -1), self.bits)[:, : self.blocks]


def unpacked(packed: Array, bits: int) -> Array:
    """One code a byte of codes that share bytes along the last axis, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(codes.reshape(*packed.shape[:-1], -1))


def to_qdq(model: ir.Model, read_per_token: dict[str, int]) -> None:
    """Change every ``MatMulNBits`` and ``GatherBlockQuantized`` of ``model``, in place.

    ``read_per_token`` are bytes by initializer; those of the new ones are added.
    """
    for node in list(model.graph):
        if node.op_type == "MatMulNBits":
            _product(model.graph, node, read_per_token)
        elif node.op_type == "GatherBlockQuantized":
            _look_up(model.graph, node, read_per_token)


def _product(graph: ir.Graph, node: ir.Node, read_per_token: dict[str, int]) -> None:
    name = str(node.name)
    inputs = [*node.inputs, *[None] * (6 - len(node.inputs))]
    size = {key: node.attributes[key].as_int() for key in ("bits", "block_size", "N", "K")}
    codes, scales = inputs[1], inputs[2]
    assert codes is not None and scales is not None
    packed = Packed(codes, scales, inputs[3], size["bits"], size["block_size"], size["N"], size["K"])
    _check(packed, name)
    kind = _TYPES[packed.bits, packed.symmetric]
    shape, blocks = [packed.columns, packed.rows], [packed.blocks, packed.rows]
    parts = [
        _weight(graph, f"{name}.codes_t", kind, shape, lambda: packed.read_codes().T),
        _weight(graph, f"{name}.scales_t", ir.DataType.FLOAT, blocks, lambda: packed.read_scales().T),
    ]
    if not packed.symmetric:
        parts.append(_weight(graph, f"{name}.zeros_t", kind, blocks, lambda: packed.read_zeros().T))
    for part in parts:
        assert part.const_value is not None
        read_per_token[str(part.name)] = part.const_value.nbytes
    change = Rewriter(graph, node)
    weight = change.add("DequantizeLinear", [*parts], axis=0, block_size=packed.block)
    result = change.add("MatMul", [inputs[0], weight])
    if inputs[5] is not None:
        result = change.add("Add", [result, inputs[5]])
    change.finish(result)


def _look_up(graph: ir.Graph, node: ir.Node, read_per_token: dict[str, int]) -> None:
    name = str(node.name)
    codes, scales = _stored(node.inputs[0]), _stored(node.inputs[2])
    zeros = _stored(node.inputs[3]) if len(node.inputs) > 3 else None
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    assert codes.shape is not None and scales.shape is not None
    rows, blocks = (int(scales.shape[axis]) for axis in (0, 1))
    packed = Packed(codes, scales, zeros, bits, block, rows, blocks * block)
    kind, change = _TYPES[8, packed.symmetric], Rewriter(graph, node)

    def row(part: str, kind: ir.DataType, width: int, read: Callable[[], Array]) -> ir.Value:
        """The rows that are looked up, by blocks ``[batch, seq, blocks, width]``, as floats."""
        shape = [rows, blocks, width]
        table = _weight(graph, f"{name}.{part}", kind, shape, lambda: read().reshape(shape))
        assert table.const_value is not None
        read_per_token[str(table.name)] = table.const_value.nbytes // rows
        found = change.add("Gather", [table, node.inputs[1]], axis=0)
        return (
            found
            if kind == ir.DataType.FLOAT
            else change.add("DequantizeLinear", [found, change.number(1.0)])
        )

    value = row("rows_8", kind, block, packed.read_codes)
    if not packed.symmetric:
        value = change.add("Sub", [value, row("row_zeros", kind, 1, packed.read_zeros)])
    scaled = change.add("Mul", [value, row("row_scales", ir.DataType.FLOAT, 1, packed.read_scales)])
    change.finish(change.add("Reshape", [scaled, change.shape(0, 0, packed.columns)]))


def _check(packed: Packed, name: str) -> None:
    if packed.columns % packed.block:
        raise ShapeError(
            f"{name}: its {packed.columns} inputs are not whole blocks of {packed.block}",
            why="DequantizeLinear needs whole blocks",
            fix="choose a group size that divides them, or export for cpu or cuda",
        )


def _stored(value: ir.Value | None) -> ir.Value:
    """``value``, or the initializer that a ``Reshape`` takes it from."""
    assert value is not None
    producer = value.producer()
    if producer is None:
        return value
    assert producer.op_type == "Reshape" and producer.inputs[0] is not None
    return producer.inputs[0]


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _weight(
    graph: ir.Graph, name: str, kind: ir.DataType, shape: list[int], make: Callable[[], Array]
) -> ir.Value:
    def produce() -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(make()).astype(kind.numpy()), dtype=kind, name=name)

    tensor = ir.LazyTensor(produce, dtype=kind, shape=ir.Shape(shape), name=name)
    value = ir.Value(name=name, type=ir.TensorType(kind), shape=tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value
