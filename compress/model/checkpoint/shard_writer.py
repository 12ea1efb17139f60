"""Per-block safetensors files become a model: a small one is a single file, written by streaming; of a large
one they are the shards, without a second copy on disk.
"""

import json
import os
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....files.storage import write_json
from ....terminal.progress import Tick, unseen
from .reader import CheckpointReader

# Up to here a model is the one file that people expect; a larger one is not worth twice its disk.
ONE_FILE = 2_000_000_000


@dataclass(frozen=True)
class Stored:
    """Where one tensor's bytes lie: ``[start, start + size)`` of ``file``."""

    name: str
    dtype: str
    shape: list[int]
    file: Path
    start: int
    size: int


def scan(part: Path) -> list[Stored]:
    """The tensors of a safetensors file that this process wrote."""
    with part.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return [
        Stored(
            name,
            entry["dtype"],
            entry["shape"],
            part,
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    ]


def _write_shard(path: Path, tensors: Sequence[Stored], tick: Tick) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as target:
        target.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            with tensor.file.open("rb") as source:
                source.seek(tensor.start)
                _copy(source, target, tensor.size, tick)


def _copy(source: Any, target: Any, size: int, tick: Tick) -> None:
    while size:
        chunk = source.read(min(size, 1 << 22))
        if not chunk:
            raise OSError("a part file ended early")
        target.write(chunk)
        size -= len(chunk)
        tick(len(chunk))


def join(parts: Sequence[Path], directory: Path, one_file: int = ONE_FILE, tick: Tick = unseen) -> int:
    """Make a model of ``parts`` in ``directory``: up to ``one_file`` tensor bytes as ``model.safetensors``,
    else each part is a shard, a hard link where the file system has them. Returns the tensor bytes, of which
    ``tick`` hears as they are done.
    """
    tensors = {part: scan(part) for part in parts}
    sizes = {part: sum(tensor.size for tensor in found) for part, found in tensors.items()}
    total = sum(sizes.values())
    if total <= one_file:
        _write_shard(directory / "model.safetensors", [one for part in parts for one in tensors[part]], tick)
        return total
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        _link(part, directory / file)
        weight_map |= {tensor.name: file for tensor in tensors[part]}
        tick(sizes[part])
    write_json(
        directory / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    return total


def _link(part: Path, shard: Path) -> None:
    try:
        os.link(part, shard)
    except OSError:  # another file system, or one without links
        shutil.copyfile(part, shard)


def copy_companions(reader: CheckpointReader, target: Path) -> None:
    """Copy tokenizer and other companion files byte for byte; links that leave the checkpoint are refused."""
    for name in reader.companions():
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reader.file(name), destination)
