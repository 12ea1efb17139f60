"""``GraphFile``: the nodes of an ONNX file, and how large its weights are, read without loading either.

A device has no onnx package, and a session does not tell what its nodes were given. Nodes of subgraphs stand
beside those of the graph: names are unique in the graphs that are exported here. Field numbers are those of
onnx.proto3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

from ...errors import BundleError
from ...files.storage import open_regular
from ...files.third_party_errors import memory_shortage
from .onnx_wire import Data, Field, Malformed, fields, packed, require_depth

# TensorProto.DataType → bits of an element.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
_BITS |= {**dict.fromkeys(range(17, 21), 8), 21: 4, 22: 4, 23: 4, 25: 2, 26: 2}


# In names of nodes: the question whether 8-bit products are exact on the processor; the choice between two
# forms of a product by the answer; and the nodes of the second form.
PROBE, EITHER, UNSIGNED = "int8.products_are_exact", "either", "unsigned"
_MOST_AXES = 64  # as many as an array of NumPy's has
# Bytes of a row of 64-bit integers whose values are read: as they are in memory, and as numbers of up to ten.
_INT64, _SHORT, _LONGEST = 7, range(8, 8 * _MOST_AXES + 1, 8), 10 * _MOST_AXES + 1


@dataclass(frozen=True)
class Weight:
    """An initializer.

    Attributes:
        bits: of one element; 0 when it has no fixed size.
        values: of a short row of 64-bit integers that the file itself holds: the sizes of a ``Split``.
    """

    shape: tuple[int, ...]
    bits: int
    values: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return -(-prod(self.shape) * self.bits // 8)


@dataclass(frozen=True)
class Node:
    """A node: its operator, the names of its inputs ("" for one left out) and outputs, and its integer
    attributes; of ``strides`` the first, since they are equal.
    """

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, int]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphFile:
    """Nodes and weights by name."""

    nodes: dict[str, Node] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> GraphFile:
        """The graph in the file ``path``."""
        graph = cls()
        try:
            with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for part in fields(data, 0, len(data)):
                    if part.number == 7 and part.value is None:
                        graph._read_graph(data, part.start, part.stop, 2)
        # An empty file cannot be mapped, bytes that are no text cannot be decoded: ValueError, as Malformed.
        except (ValueError, OSError) as error:
            unreadable = BundleError(f"{path} is not a readable ONNX model", why=str(error))
            raise memory_shortage(error) or unreadable from None
        return graph

    def first_forms(self) -> dict[str, Node]:
        """The nodes without those that end when the graph is loaded: of two forms of a product the first is
        left, with the outputs of the choice.
        """
        found: dict[str, Node] = {}
        for name, node in self.nodes.items():
            parts = name.split(".")
            if EITHER in parts:
                product = next(reversed(found))
                found[product] = replace(found[product], outputs=node.outputs)
            elif UNSIGNED not in parts and not name.startswith(PROBE):
                found[name] = node
        return found

    def _read_graph(self, data: Data, start: int, stop: int, depth: int) -> None:
        """``depth``: in how many messages these bytes lie, the graph's own with them."""
        require_depth(depth)
        for part in fields(data, start, stop):
            if part.number == 1 and part.value is None:
                self._read_node(data, part.start, part.stop, depth + 1)
            elif part.number == 5 and part.value is None:
                name, weight = _tensor(data, part.start, part.stop)
                self.weights[name] = weight

    def _read_node(self, data: Data, start: int, stop: int, depth: int) -> None:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
        attributes: dict[str, int] = {}
        for part in fields(data, start, stop):
            if part.number in texts:
                texts[part.number].append(_text(data, part.start, part.stop))
            elif part.number == 5:
                self._read_attribute(data, part, attributes, depth + 1)
        node = Node("".join(texts[4]), tuple(texts[1]), attributes, tuple(texts[2]))
        self.nodes["".join(texts[3])] = node

    def _read_attribute(self, data: Data, whole: Field, into: dict[str, int], depth: int) -> None:
        name, number = "", None
        for part in fields(data, whole.start, whole.stop):
            if part.number == 1:
                name = _text(data, part.start, part.stop)
            elif part.number == 3:
                number = part.value
            elif part.number == 8 and name == "strides" and number is None:
                number = next(iter(packed(data, part)), None)
            elif part.number in (6, 11) and part.value is None:
                self._read_graph(data, part.start, part.stop, depth + 1)
        if number is not None:
            # An int64 below zero is written as its two's complement.
            into[name] = _signed(number)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _tensor(data: Data, start: int, stop: int) -> tuple[str, Weight]:
    name, shape, kind = "", [], 0
    values: list[int] = []
    for part in fields(data, start, stop):
        if part.number == 1:
            shape += packed(data, part)
        elif part.number == 2 and part.value is not None:
            kind = part.value
        elif part.number == 7 and len(values) <= _MOST_AXES and part.stop - part.start in range(_LONGEST):
            values += [_signed(number) for number in packed(data, part)]
        elif part.number == 8:
            name = _text(data, part.start, part.stop)
        elif part.number == 9 and part.value is None and part.stop - part.start in _SHORT:
            values = list(struct.unpack(f"<{(part.stop - part.start) // 8}q", data[part.start : part.stop]))
    if len(shape) > _MOST_AXES or any(size >> 63 for size in shape):
        raise Malformed(f"a weight has {len(shape)} axes, or one of no size")
    row = tuple(values) if kind == _INT64 and shape == [len(values)] else ()
    return name, Weight(tuple(shape), _BITS.get(kind, 0), row)


def _text(data: Data, start: int, stop: int) -> str:
    return bytes(data[start:stop]).decode("utf-8")
