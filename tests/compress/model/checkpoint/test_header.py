"""Safetensors headers: every bound refuses, naming file and tensor; no mutant escapes the typed errors."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.header import ITEM_BYTES, MAX_HEADER_BYTES
from edgepress.compress.model.checkpoint.shards import ShardFiles
from edgepress.compress.model.checkpoint.tensor_check import TORCH_TYPES
from edgepress.errors import CheckpointError, EdgepressError
from safetensors.torch import save_file


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_every_stored_type_and_shape_agrees_with_the_library(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5), generator=generator).to(dtype)
        for name, dtype in TORCH_TYPES.items()
    }
    tensors |= {"scalar": torch.tensor(7.0), "empty": torch.empty(0, 4)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = ShardFiles().header(tmp_path / "model.safetensors")
    assert {name: item.shape for name, item in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    for name, dtype in TORCH_TYPES.items():
        assert (found[name].dtype, ITEM_BYTES[name]) == (name, dtype.itemsize)
        assert found[name].end - found[name].start == tensors[name].nbytes


BAD = {
    "not JSON": (b"{", "not valid JSON"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not valid JSON"),
    "list": ([], "not a JSON object"),
    "duplicate": (b'{"a": 1, "a": 2}', "'a' occurs twice"),
    "metadata": ({"__metadata__": {"a": 1}}, "__metadata__"),
    "no offsets": ({"a": {"dtype": "U8", "shape": [1]}}, "'a' needs exactly"),
    "extra key": ({"a": entry(0, 1) | {"x": 1}}, "'a' needs exactly"),
    "unknown type": ({"a": entry(0, 1, "F3")}, "'a' has the type 'F3'"),
    "unhashable type": ({"a": entry(0, 1) | {"dtype": []}}, "'a' has the type"),
    "rank": ({"a": entry(0, 1, shape=[1] * 9)}, "'a' has no valid shape"),
    "negative": ({"a": entry(0, 1, shape=[-1, -1])}, "'a' has no valid shape"),
    "bool": ({"a": entry(0, 1, shape=[True])}, "'a' has no valid shape"),
    "float": ({"a": entry(0, 1, shape=[1.0])}, "'a' has no valid shape"),
    "huge": ({"a": entry(0, 1, shape=[1 << 62, 1 << 62])}, "'a' spans 1 bytes"),
    "reversed": ({"a": entry(1, 0, shape=[1])}, "'a' has no valid data_offsets"),
    "size": ({"a": entry(0, 3, "F16", shape=[1])}, "'a' spans 3 bytes, its shape needs 2"),
    "past the end": ({"a": entry(0, 9)}, "end at byte"),
    "too short": ({"a": entry(0, 7)}, "end at byte"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 8)}, "'b' overlaps"),
    "hole": ({"a": entry(0, 3), "b": entry(4, 8)}, "'b' leaves a hole"),
    "empty name": ({"": entry(0, 8)}, "name is empty"),
    "long name": ({"x" * 513: entry(0, 8)}, "too long"),
    "control name": ({"a\nb": entry(0, 8)}, "unprintable"),
    "utf-16": (json.dumps({"a": entry(0, 8)}).encode("utf-16"), "not valid JSON in UTF-8"),
    "utf-32": (json.dumps({"a": entry(0, 8)}).encode("utf-32-le"), "not valid JSON|not a JSON|claims"),
    "surrogate name": (b'{"\\ud800": 1}', "unprintable"),
}


@pytest.mark.parametrize("case", BAD)
def test_bounds(case: str, tmp_path: Path) -> None:
    header, message = BAD[case]
    with pytest.raises(CheckpointError, match=message) as caught:
        ShardFiles().header(write(tmp_path / "weights.safetensors", header, bytes(8)))
    assert "weights.safetensors" in caught.value.what


@pytest.mark.parametrize("claimed", [9, MAX_HEADER_BYTES + 1, 1 << 63, (1 << 64) - 1])
def test_header_length_is_bounded_by_the_file(claimed: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(claimed.to_bytes(8, "little") + bytes(8))
    with pytest.raises(CheckpointError, match=f"claims {claimed} bytes"):
        ShardFiles().header(path)


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_the_length_field(size: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(CheckpointError):
        ShardFiles().header(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        ShardFiles().header(tmp_path / "absent.safetensors")


Mutation = Callable[[bytearray, random.Random], None]


def _flip(data: bytearray, generator: random.Random) -> None:
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(min(len(data), 600))] ^= 1 << generator.randrange(8)


def _cut(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


def _swap_digits(data: bytearray, generator: random.Random) -> None:
    places = [index for index, byte in enumerate(data[:600]) if 48 <= byte <= 57]
    for index in generator.sample(places, 3):
        data[index] = generator.choice(b"0123456789-.eE")


def _splice(data: bytearray, generator: random.Random) -> None:
    start, end = sorted(generator.sample(range(8, min(len(data), 600)), 2))
    place = generator.randrange(8, min(len(data), 600))
    data[place:place] = data[start:end]


@pytest.mark.chain
def test_mutants_raise_typed_errors_only(tmp_path: Path) -> None:
    """3,000 seeded mutants: each raises an EdgepressError, or loads and fits the file."""
    path = tmp_path / "weights.safetensors"
    save_file({f"layer.{index}.weight": torch.arange(12.0).view(3, 4) for index in range(5)}, path)
    original = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(3_000):
        data = bytearray(original)
        generator.choice((_flip, _cut, _swap_digits, _splice))(data, generator)
        path.write_bytes(data)
        try:
            entries = ShardFiles().header(path)
        except EdgepressError:
            refused += 1
        else:
            assert all(0 < item.start <= item.end <= len(data) for item in entries.values())
    assert refused > 2_000
