"""Writing safetensors by streaming: per-block files become the shards of a model, never held in memory."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....storage import write_json
from ....terminal import Tick, unseen
from .reader import CheckpointReader

SHARD_BYTES = 5_000_000_000


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


def join(parts: Sequence[Path], directory: Path, shard_bytes: int = SHARD_BYTES, tick: Tick = unseen) -> int:
    """Write the tensors of ``parts`` as ``model.safetensors`` (or shards and their index); returns the tensor
    bytes, of which ``tick`` hears as they are written.
    """
    shards: list[list[Stored]] = [[]]
    for part in parts:
        for tensor in scan(part):
            if shards[-1] and sum(t.size for t in shards[-1]) + tensor.size > shard_bytes:
                shards.append([])
            shards[-1].append(tensor)
    total = sum(tensor.size for shard in shards for tensor in shard)
    if len(shards) == 1:
        _write_shard(directory / "model.safetensors", shards[0], tick)
        return total
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / file, shard, tick)
        weight_map |= {tensor.name: file for tensor in shard}
    write_json(
        directory / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    return total


def copy_companions(reader: CheckpointReader, target: Path) -> None:
    """Copy tokenizer and other companion files byte for byte; links that leave the checkpoint are refused."""
    for name in reader.companions():
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reader.file(name), destination)
