"""``CheckpointReader``: a model directory of safetensors, read a few tensors at a time, never whole.

Bytes go from the file straight into memory that the caller owns. Nothing is mapped, so the resident set is
the tensors asked for, whatever the size of the file, and a file that shrinks meanwhile is an error and not a
bus error. Every file is opened once and closed with the reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError, InputError
from ....storage import sha256_file, sha256_json
from .policy import CONFIG, inside, read_config
from .shards import INDEX, PICKLES, Location, ShardFiles, locate, refused_pickle

COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    "LICENSE*",
    "NOTICE*",
)

TORCH_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}

# Published before transformers renamed them, and renamed on every load since.
_LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class CheckpointReader:
    """A checkpoint directory whose files have been checked.

    Attributes:
        path: the directory.
        config: ``config.json``.
        shapes: shape of each tensor by name.
        dtypes: stored type of each tensor by its safetensors name (``F32``, ``BF16``, …).
    """

    def __init__(
        self, path: Path, config: dict[str, Any], tensors: dict[str, Location], files: ShardFiles
    ) -> None:
        self.path, self.config = path, config
        self._tensors, self._files = tensors, files
        self.shapes = {name: location.entry.shape for name, location in tensors.items()}
        self.dtypes = {name: location.entry.dtype for name, location in tensors.items()}

    @classmethod
    def open(cls, path: Path) -> CheckpointReader:
        """Check config, index and headers of the directory ``path``; loads no weights.

        Raises:
            CheckpointError: something is missing, damaged or inconsistent; names the file and the tensor.
            RefusedByPolicy: pickle weights, settings that ask for code, or names that leave the directory.
        """
        if path.is_file() and path.suffix in PICKLES:
            raise refused_pickle(path)
        if not path.is_dir():
            raise InputError(f"{path} is not a model directory", fix="give one with config.json and weights")
        path, files = path.absolute(), ShardFiles()
        config = read_config(path)
        return cls(path, config, _modern_names(locate(path, files)), files)

    def close(self) -> None:
        """Close the weight files now, before their directory is removed; reading opens them again."""
        self._files.close()

    def nbytes(self, name: str) -> int:
        """Stored size of a tensor in bytes."""
        entry = self._location(name).entry
        return entry.end - entry.start

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named tensors in their stored types, in memory of their own.

        Raises:
            CheckpointError: no such tensor, or the file changed or cannot be read.
        """
        return {name: self._load(name, self._location(name)) for name in names}

    def file(self, name: str) -> Path:
        """The path of a companion file, checked to lie inside the checkpoint."""
        return inside(self.path, name)

    def companions(self) -> list[str]:
        """Relative names of the files that belong to the model beside config and weights (tokenizer, …)."""
        found = {path for pattern in COMPANIONS for path in self.path.glob(pattern) if path.is_file()}
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def fingerprint(self) -> str:
        """Hex SHA-256 over the content of config, weights and companions: equal models have equal ones."""
        paths = {location.path for location in self._tensors.values()}
        weights = {path.relative_to(self.path).as_posix(): self._files.sha256(path) for path in paths}
        index = {INDEX} if len(weights) > 1 else set()
        others = {CONFIG, *index, *self.companions()}
        return sha256_json(weights | {name: sha256_file(self.file(name)) for name in others})

    def _load(self, name: str, location: Location) -> Tensor:
        entry, path = location.entry, location.path
        buffer = torch.empty(entry.end - entry.start, dtype=torch.uint8)
        try:
            count = self._files.read_into(buffer.numpy().data, path, entry.start)
        except OSError as error:
            raise CheckpointError(f"cannot read tensor {name!r} from {path}", why=str(error)) from error
        if count < len(buffer):
            raise CheckpointError(f"{path} shrank while it was read: tensor {name!r} is cut short")
        return buffer.view(TORCH_TYPES[entry.dtype]).view(entry.shape)

    def _location(self, name: str) -> Location:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        return self._tensors[name]


def content_hash(path: Path) -> str:
    """Hash of a checkpoint's directory or of a file; empty where there is none."""
    if path.is_dir():
        return CheckpointReader.open(path).fingerprint()
    return sha256_file(path) if path.is_file() else ""


def _modern_names(tensors: dict[str, Location]) -> dict[str, Location]:
    renamed: dict[str, Location] = {}
    for name, location in tensors.items():
        head, dot, tail = name.rpartition("LayerNorm.")
        modern = head + _LEGACY.get(dot + tail, dot + tail)
        if modern in renamed:
            raise CheckpointError(f"{location.path} holds {modern!r} under its old name and its new one")
        renamed[modern] = location
    return renamed
