"""An ONNX file read in place, without the onnx package and its weights: fields and external data files.

Protobuf's wire format gives the fields of a message as numbers and spans of the file; a walk over them finds
every file that the graph would open.
"""

import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import BundleError
from ...files.storage import open_regular
from ...files.third_party_errors import memory_shortage

Data = mmap.mmap | bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The bytes are not a protobuf message."""


class Field(NamedTuple):
    """One field: its ``number``, and either the span ``start:stop`` of its bytes or its varint ``value``."""

    number: int
    start: int
    stop: int
    value: int | None


def varint(data: Data, position: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes at ``position``, and where the next one begins."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise Malformed("a number runs past its message")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Malformed("a number is longer than ten bytes")


def fields(data: Data, position: int, end: int) -> Iterator[Field]:
    """The fields of the message ``data[position:end]``; fixed-width numbers are skipped."""
    while position < end:
        # Nearly all numbers here are one byte long, and a start of a bundle reads thousands of them.
        key = data[position]
        if key < 0x80:
            position += 1
        else:
            key, position = varint(data, position, end)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            if position < end and data[position] < 0x80:
                length = data[position]
                position += 1
            else:
                length, position = varint(data, position, end)
            if position + length > end:
                raise Malformed("a field runs past its message")
            yield Field(number, position, position + length, None)
            position += length
        elif wire == _VARINT:
            start = position
            value, position = varint(data, position, end)
            yield Field(number, start, position, value)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire} does not occur in ONNX")


def packed(data: Data, field: Field) -> list[int]:
    """The numbers of a repeated integer field, packed or one by one."""
    if field.value is not None:
        return [field.value]
    numbers, position = [], field.start
    while position < field.stop:
        value, position = varint(data, position, field.stop)
        numbers.append(value)
    return numbers


# Messages inside each other: what protobuf's own reader takes. A deeper file costs a reader its stack, or its
# length again for each of them.
MOST_NESTED = 100


def require_depth(depth: int) -> None:
    """Raise :class:`Malformed` where messages lie deeper inside each other than any reader takes."""
    if depth > MOST_NESTED:
        raise Malformed(f"its messages are nested deeper than {MOST_NESTED}")


_ENTRY = "StringStringEntry"
_KEY = b"location"
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: _ENTRY},
}


def _entry(data: mmap.mmap, start: int, stop: int) -> tuple[str, str]:
    """Key and value of an entry of a tensor's external data."""
    found = [field for field in fields(data, start, stop) if field.value is None]
    entry = {field.number: bytes(data[field.start : field.stop]) for field in found}
    return entry.get(1, b"").decode("utf-8", "replace"), entry.get(2, b"").decode("utf-8", "backslashreplace")


def _end(entries: list[tuple[str, str]]) -> int:
    """How far into its file a tensor with these entries reads."""
    end = 0
    for wanted in ("offset", "length"):
        written = [value for key, value in entries if key == wanted]
        if not all(value.isascii() and value.isdecimal() for value in written):
            raise Malformed(f"the {wanted} of external data is no number: {written[-1][:40]!r}")
        end += max(map(int, written), default=0)
    return end


def _walk(data: mmap.mmap) -> dict[str, int]:
    ends: dict[str, int] = {}
    pending = [("Model", 0, len(data), 1)]
    while pending:
        message, position, end, depth = pending.pop()
        require_depth(depth)
        entries: list[tuple[str, str]] = []
        for field in fields(data, position, end):
            child = _CHILDREN[message].get(field.number) if field.value is None else None
            if child == _ENTRY:
                entries.append(_entry(data, field.start, field.stop))
            elif child is not None and data.find(_KEY, field.start, field.stop) >= 0:
                pending.append((child, field.start, field.stop, depth + 1))
        for location in (value for key, value in entries if key == _KEY.decode()):
            ends[location] = max(ends.get(location, 0), _end(entries))
    return ends


def external_locations(model: Path) -> dict[str, int]:
    """The names of external data files in an ONNX file, as written there, and how far it reads into each."""
    try:
        with open_regular(model) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data)
    except (ValueError, OSError) as error:  # an empty file cannot be mapped: ValueError, as for Malformed
        unreadable = BundleError(f"{model} is not a readable ONNX model", why=str(error))
        raise memory_shortage(error) or unreadable from None


def link_problems(root: Path, names: Iterable[str]) -> list[str]:
    """A sentence for each of ``names`` that is a symbolic link, a hard link to a file outside ``root``, or
    there but no file at all.

    Two hard links inside ``root`` are harmless: both are hashed.
    """
    problems: list[str] = []
    inside: Counter[tuple[int, int]] = Counter()
    linked: dict[str, os.stat_result] = {}
    for name in sorted(names):
        path = root / name
        within = [path, *path.parents][: len(Path(name).parts)]
        if any(part.is_symlink() for part in within):
            problems.append(f"{name} is a symbolic link")
        elif path.is_file():
            status = path.stat()
            inside[status.st_dev, status.st_ino] += 1
            if status.st_nlink > 1:
                linked[name] = status
        elif path.exists():
            problems.append(f"{name} is no regular file")
    problems += [
        f"{name} is a hard link to a file outside"
        for name, status in linked.items()
        if status.st_nlink > inside[status.st_dev, status.st_ino]
    ]
    return problems
