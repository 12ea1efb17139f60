"""ONNX models of a few kinds of node, as bytes: a device has no onnx package, and what is timed is small.

Protobuf's wire format is written directly; the numbers of fields are those of onnx.proto3, which
:mod:`~edgepress.runtime.bundle.graph_file` reads.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10
_OPSET, _IR = 23, 11
_SHORT = [bytes((value,)) for value in range(0x80)]  # numbers of one byte: most of a model
_DOMAINS = (("", _OPSET), ("com.microsoft", 1), ("edgepress", 1))


@dataclass(frozen=True)
class Tensor:
    """An input, or a weight that lies at ``offset`` of the file of weights.

    Attributes:
        dtype: of TensorProto.DataType.
        shape: None is one that a run decides.
    """

    dtype: int
    shape: tuple[int, ...] | None
    nbytes: int = 0
    offset: int | None = None


@dataclass
class SmallModel:
    """What a model is made of, by name; nodes in the order in which they run."""

    weights_file: str = ""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[bytes] = field(default_factory=list)

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        attributes: Mapping[str, int | float | str] | None = None,
    ) -> None:
        """Add a node; it is named after its first output."""
        parts = [_text(1, name) for name in inputs] + [_text(2, name) for name in outputs]
        parts += [_text(3, outputs[0]), _text(4, op), _text(7, domain)]
        parts += [_message(5, _attribute(name, value)) for name, value in (attributes or {}).items()]
        self.nodes.append(b"".join(parts))

    def serialized(self) -> bytes:
        """The bytes of the ONNX file."""
        parts = [_message(1, node) for node in self.nodes]
        parts.append(_text(2, "timed"))
        parts += [_message(5, self._initializer(name, one)) for name, one in self.weights.items()]
        parts += [_message(11, _value(name, one)) for name, one in self.inputs.items()]
        parts += [_message(12, _value(name, one)) for name, one in self.outputs.items()]
        opsets = [_message(8, _text(1, domain) + _number(2, version)) for domain, version in _DOMAINS]
        return b"".join([_number(1, _IR), _message(7, b"".join(parts)), *opsets])

    def _initializer(self, name: str, tensor: Tensor) -> bytes:
        sizes = b"".join(_number(1, size) for size in tensor.shape or ())
        entries = {"location": self.weights_file, "offset": tensor.offset, "length": tensor.nbytes}
        external = [_message(13, _text(1, key) + _text(2, str(value))) for key, value in entries.items()]
        return sizes + _number(2, tensor.dtype) + _text(8, name) + b"".join(external) + _number(14, 1)


def _attribute(name: str, value: int | float | str) -> bytes:
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    if isinstance(value, float):
        return _text(1, name) + b"\x15" + struct.pack("<f", value) + _number(20, 1)
    return _text(1, name) + _number(3, value) + _number(20, 2)


def _value(name: str, tensor: Tensor) -> bytes:
    kind = _number(1, tensor.dtype)
    if tensor.shape is not None:
        kind += _message(2, b"".join(_message(1, _number(1, size)) for size in tensor.shape))
    return _text(1, name) + _message(2, _message(1, kind))


def _varint(value: int) -> bytes:
    if 0 <= value < len(_SHORT):
        return _SHORT[value]
    value &= (1 << 64) - 1
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())
