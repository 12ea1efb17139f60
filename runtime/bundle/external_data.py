"""Which files an ONNX graph would open, found without loading it: a walk over its protobuf wire format.

A graph names the files of its large tensors, and a runtime opens what is named. Before a session is made,
every name must be a file that the manifest lists, and none may be a link: a link's target is outside what was
hashed. Only the messages that can hold a tensor are entered, and of these only those in whose bytes the key
"location" stands somewhere: protobuf writes a text as it is, and a graph has thousands of nodes without any.
Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ...errors import BundleError
from .wire_format import fields

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


def _location(data: mmap.mmap, start: int, stop: int) -> str | None:
    found = [field for field in fields(data, start, stop) if field.value is None]
    entry = {field.number: bytes(data[field.start : field.stop]) for field in found}
    if entry.get(1) != _KEY:
        return None
    return entry.get(2, b"").decode("utf-8", "backslashreplace")


def _walk(data: mmap.mmap) -> set[str]:
    locations: set[str] = set()
    pending = [("Model", 0, len(data))]
    while pending:
        message, position, end = pending.pop()
        for field in fields(data, position, end):
            child = _CHILDREN[message].get(field.number) if field.value is None else None
            if child == _ENTRY:
                location = _location(data, field.start, field.stop)
                if location is not None:
                    locations.add(location)
            elif child is not None and data.find(_KEY, field.start, field.stop) >= 0:
                pending.append((child, field.start, field.stop))
    return locations


def external_locations(model: Path) -> set[str]:
    """The names of external data files in an ONNX file, as written there.

    Raises:
        BundleError: the file is not an ONNX model.
    """
    try:
        with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data)
    except (ValueError, OSError) as error:  # an empty file cannot be mapped: ValueError, as for Malformed
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
