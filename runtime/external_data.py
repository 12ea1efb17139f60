"""Which files an ONNX graph would open, found without loading it: a walk over its protobuf wire format.

A graph names the files of its large tensors, and a runtime opens what is named. Before a session is made,
every name must be a file that the manifest lists, and none may be a link: a link's target is outside what was
hashed. Only the messages that can hold a tensor are entered; field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import BundleError

_ENTRY = "StringStringEntry"
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
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Malformed(ValueError):
    """The bytes are not a protobuf message."""


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _Malformed("a number runs past its message")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed("a number is longer than ten bytes")


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, start and stop of each length-delimited field in ``data[position:end]``."""
    while position < end:
        key, position = _varint(data, position, end)
        wire = key & 7
        if wire == _BYTES:
            length, position = _varint(data, position, end)
            if position + length > end:
                raise _Malformed("a field runs past its message")
            yield key >> 3, position, position + length
            position += length
        elif wire == _VARINT:
            _, position = _varint(data, position, end)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise _Malformed(f"wire type {wire} does not occur in ONNX")


def _location(data: mmap.mmap, start: int, stop: int) -> str | None:
    entry = {field: bytes(data[first:last]) for field, first, last in _fields(data, start, stop)}
    if entry.get(1) != b"location":
        return None
    return entry.get(2, b"").decode("utf-8", "backslashreplace")


def _walk(data: mmap.mmap) -> set[str]:
    locations: set[str] = set()
    pending = [("Model", 0, len(data))]
    while pending:
        message, position, end = pending.pop()
        for field, start, stop in _fields(data, position, end):
            child = _CHILDREN[message].get(field)
            if child == _ENTRY:
                location = _location(data, start, stop)
                if location is not None:
                    locations.add(location)
            elif child is not None:
                pending.append((child, start, stop))
    return locations


def external_locations(model: Path) -> set[str]:
    """The names of external data files in an ONNX file, as written there.

    Raises:
        BundleError: the file is not an ONNX model.
    """
    try:
        with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data)
    except (ValueError, OSError) as error:  # an empty file cannot be mapped: ValueError, as for _Malformed
        raise BundleError(f"{model} is not a readable ONNX model", why=str(error)) from None


def link_problems(root: Path, names: Iterable[str]) -> list[str]:
    """A sentence for each of ``names`` that is a symbolic link, or a hard link to a file outside ``root``.

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
    problems += [
        f"{name} is a hard link to a file outside"
        for name, status in linked.items()
        if status.st_nlink > inside[status.st_dev, status.st_ino]
    ]
    return problems
