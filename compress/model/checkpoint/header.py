"""The header of a safetensors file, parsed and bounded here before any byte of it is used.

The format is 8 bytes little-endian header length, a JSON object ``{name: {dtype, shape, data_offsets}}``,
then the data. Nothing is trusted until checked: sizes, ranks, names, types, and that the extents of the
tensors tile the rest of the file exactly, so that no tensor can overlap another or reach past the end.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ....errors import CheckpointError

MAX_HEADER_BYTES = 100 << 20
MAX_TENSORS = 1_000_000
MAX_RANK = 8
MAX_NAME_BYTES = 512
METADATA = "__metadata__"

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}

_DAMAGED = "the file is damaged, was cut short while it was copied, or was made to mislead a reader"
_FETCH = "fetch the file again and compare its hash with the publisher's"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: stored ``dtype`` by its safetensors name, ``shape``, and absolute offsets in
    bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(stream: BinaryIO, path: Path) -> dict[str, TensorEntry]:
    """The tensors of the open safetensors file ``stream`` by name; errors name its ``path``."""
    return parse_header(*_data(stream, path), path)


def read_metadata(stream: BinaryIO, path: Path) -> dict[str, str]:
    """The texts that the header of ``stream`` has beside its tensors, by name; as :func:`read_header`."""
    return _content(_data(stream, path)[0], path)[1]


def _data(stream: BinaryIO, path: Path) -> tuple[bytes, int]:
    """The text of the header, and the size of the file in bytes."""
    size = os.fstat(stream.fileno()).st_size
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise _refusal(path, f"its header claims {length} bytes, the file has {size}")
    return stream.read(length), size


def _content(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What the header says of each tensor, not yet checked, and its metadata."""
    try:
        # The format says UTF-8; of bytes Python would guess at UTF-16 and UTF-32 as well.
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"its header is not valid JSON in UTF-8 ({error})") from None
    if not isinstance(content, dict):
        raise _refusal(path, "its header is not a JSON object")
    metadata = content.pop(METADATA, {})
    _check_metadata(metadata, path)
    return content, metadata


def parse_header(data: bytes, file_size: int, path: Path) -> dict[str, TensorEntry]:
    """Check the JSON text ``data`` of a header whose file has ``file_size`` bytes; errors name ``path``."""
    content, _ = _content(data, path)
    if len(content) > MAX_TENSORS:
        raise _refusal(path, f"its header lists {len(content)} tensors, more than {MAX_TENSORS}")
    begin = 8 + len(data)
    entries = {name: _entry(name, value, begin, path) for name, value in content.items()}
    _check_extents(entries, begin, file_size, path)
    return entries


def _refusal(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a valid safetensors file: {what}", why=_DAMAGED, fix=_FETCH)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!a} occurs twice")
    return content


def _check_metadata(metadata: object, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refusal(path, f"its {METADATA} is not a table of texts")


def _entry(name: str, value: object, begin: int, path: Path) -> TensorEntry:
    if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise _refusal(path, f"a tensor name is empty, unprintable or too long: {name[:80]!a}")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refusal(path, f"tensor {name!r} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has the type {str(dtype)[:40]!a}, which edgepress does not read",
            fix=f"known types: {', '.join(ITEM_BYTES)}",
        )
    if not _counts(shape) or len(shape) > MAX_RANK:
        raise _refusal(path, f"tensor {name!r} has no valid shape (at most {MAX_RANK} dimensions)")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _refusal(path, f"tensor {name!r} has no valid data_offsets")
    needed = prod(shape) * ITEM_BYTES[dtype]
    if needed != offsets[1] - offsets[0]:
        raise _refusal(
            path, f"tensor {name!r} spans {offsets[1] - offsets[0]} bytes, its shape needs {needed}"
        )
    return TensorEntry(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _counts(value: object) -> bool:
    # bool is an int to Python, not to the format.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_extents(entries: Mapping[str, TensorEntry], begin: int, file_size: int, path: Path) -> None:
    position = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            kind = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise _refusal(path, f"tensor {name!r} {kind} (byte {entry.start}, expected {position})")
        position = entry.end
    if position != file_size:
        raise _refusal(path, f"its tensors end at byte {position}, the file has {file_size}")
