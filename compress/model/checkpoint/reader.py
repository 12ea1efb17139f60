"""``CheckpointReader``: a model directory of safetensors, read a few tensors at a time, never whole.

Bytes go from the file straight into memory that the caller owns. Nothing is mapped, so the resident set is
the tensors asked for, whatever the size of the file, and a file that shrinks meanwhile is an error and not a
bus error. Every file is opened once and closed with the reader. What other tools have quantized is shown, and
read, as the float weights that it stands for (:mod:`.coded_weights`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError, InputError
from ....files.storage import sha256_file, sha256_json
from ....files.third_party_errors import memory_shortage
from ....terminal.progress import Tick, unseen
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from ..family import stored_transposed
from .coded_weights import CodedWeight, CodedWeights, Notes, coded_weights
from .header import METADATA, TensorEntry
from .linear_shapes import LINEARS, linear_shapes
from .policy import CONFIG, companions, inside, read_config
from .shards import AT_ONCE, INDEX, PICKLES, Location, ShardFiles, locate, refused_pickle
from .tensor_check import TORCH_TYPES, NonFinite, refuse_non_finite
from .tensor_names import apart, modern_names


class CheckpointReader:
    """A checkpoint directory whose files have been checked.

    Attributes:
        path: the directory.
        config: ``config.json``.
        shapes: shape of each tensor by name.
        dtypes: stored type of each tensor by its safetensors name (``F32``, ``BF16``, …).
        coded: weights that another tool has quantized, which are floats in ``shapes`` and ``dtypes``.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        tensors: dict[str, Location],
        files: ShardFiles,
        coded: CodedWeights | None = None,
    ) -> None:
        self.path, self.config = path, config
        self._tensors, self._files = tensors, files
        self._finite: set[str] = set()
        self.coded = coded or CodedWeights()
        weights = {f"{module}.weight": weight for module, weight in self.coded.by_module.items()}
        hidden = {part for weight in weights.values() for part in weight.parts}
        plain = {name: location.entry for name, location in tensors.items() if name not in hidden}
        self._weights: dict[str, CodedWeight] = weights
        self._turned = stored_transposed(config) if weights else ()
        self.shapes = {name: entry.shape for name, entry in plain.items()}
        self.dtypes = {name: entry.dtype for name, entry in plain.items()}
        for name, weight in weights.items():
            self.shapes[name] = weight.shape[::-1] if self._is_turned(name) else weight.shape
            self.dtypes[name] = "F32"

    @classmethod
    def open(cls, path: Path, *, as_stored: bool = False) -> CheckpointReader:
        """Check config, index and headers of the directory ``path``; loads no weights. ``as_stored``: what
        other tools have quantized is shown in its parts.
        """
        if path.is_file() and path.suffix in PICKLES:
            raise refused_pickle(path)
        if not path.is_dir():
            raise InputError(f"{path} is not a model directory", fix="give one with config.json and weights")
        path, files = path.absolute(), ShardFiles()
        config = read_config(path)
        tensors = apart(modern_names(locate(path, files), config))
        plain = cls(path, config, tensors, files)
        if as_stored:
            return plain
        entries = {name: location.entry for name, location in tensors.items()}
        shards = {location.path for location in tensors.values()}
        notes: dict[str, Notes] = {
            METADATA: lambda: files.metadata(shards),
            LINEARS: lambda: linear_shapes(path, config, len(tensors)),
        }
        coded = coded_weights(path, config, entries, plain._plain, notes)
        if coded.by_module:
            config = _without_forms(config)
        return cls(path, config, tensors, files, coded)

    def close(self) -> None:
        """Close the weight files now, before their directory is removed; reading opens them again."""
        self._files.close()

    def nbytes(self, name: str) -> int:
        """Stored size of a tensor in bytes."""
        entries = [self._location(part).entry for part in self._parts(name)]
        return sum(entry.end - entry.start for entry in entries)

    def read_bytes(self, name: str) -> int:
        """Bytes of a tensor as :meth:`read` gives it."""
        return 4 * prod(self.shapes[name]) if name in self._weights else self.nbytes(name)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named tensors in their stored types, in memory of their own; checked when first read."""
        return {name: self._weight(name) if name in self._weights else self._plain(name) for name in names}

    def scheme(self, module: str) -> Scheme | None:
        """The scheme whose grid the coded weight of ``module`` is on; None where none has it."""
        return self.coded.by_module[module].scheme(self._plain)

    def codes(self, module: str, scheme: Scheme) -> QTensor:
        """The coded weight ``[out, in]`` of ``module`` on the grid of its :meth:`scheme`."""
        codes = self.coded.by_module[module].codes
        assert codes is not None
        return codes(scheme, self._plain)

    def expect(self, prefix: str) -> None:
        """Say that the tensors below ``prefix`` are read next: the system may read them meanwhile."""
        for name, location in self._tensors.items():
            if name.startswith(prefix):
                entry = location.entry
                self._files.expect(location.path, entry.start, entry.end - entry.start)

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors have the same type, shape and bytes; a part of each is read at a time."""
        if {one, other} & self._weights.keys():
            return torch.equal(*(tensor.to(torch.float32) for tensor in self.read([one, other]).values()))
        places = [self._location(name) for name in (one, other)]
        if (self.dtypes[one], self.shapes[one]) != (self.dtypes[other], self.shapes[other]):
            return False
        buffers = [torch.empty(AT_ONCE, dtype=torch.uint8) for _ in places]
        for start in range(0, self.nbytes(one), AT_ONCE):
            parts = [buffer[: self.nbytes(one) - start] for buffer in buffers]
            for part, place in zip(parts, places, strict=True):
                self._fill(part, place, start, one)
            if not torch.equal(*parts):
                return False
        return True

    def file(self, name: str) -> Path:
        """The path of a companion file, checked to lie inside the checkpoint."""
        return inside(self.path, name)

    def companions(self) -> list[str]:
        """As :func:`.policy.companions`."""
        return companions(self.path)

    def fingerprint(self, tick: Tick = unseen) -> str:
        """Hex SHA-256 over the content of config, weights and companions: equal models have equal ones.
        ``tick`` receives the bytes of weights that are done.
        """
        tensors: dict[Path, list[tuple[str, TensorEntry]]] = {}
        for name, location in self._tensors.items():
            tensors.setdefault(location.path, []).append((name, location.entry))
        seen = NonFinite()
        weights = {
            path.relative_to(self.path).as_posix(): self._files.sha256(path, entries, seen, tick)
            for path, entries in tensors.items()
        }
        seen.refuse()
        self._finite |= self._tensors.keys()
        others = self.files().keys() - weights.keys()
        return sha256_json(weights | {name: sha256_file(self.file(name)) for name in others})

    def files(self) -> dict[str, Path]:
        """Config, weights and companions: all that the fingerprint is of."""
        weights = {location.path for location in self._tensors.values()}
        found = {path.relative_to(self.path).as_posix(): path for path in sorted(weights)}
        others = [CONFIG, *([INDEX] if len(weights) > 1 else []), *self.companions()]
        return found | {name: self.file(name) for name in others}

    def read_into(self, view: memoryview, path: Path, start: int) -> int:
        """Fill ``view`` with the bytes of one of :meth:`files` from ``start``; returns how many."""
        return self._files.read_into(view, path, start)

    def _parts(self, name: str) -> tuple[str, ...]:
        return self._weights[name].parts if name in self._weights else (name,)

    def _is_turned(self, name: str) -> bool:
        return bool(self._turned) and name.endswith(self._turned)

    def _weight(self, name: str) -> Tensor:
        """The coded weight ``name`` as the family stores it in float32."""
        weight = self._weights[name].dequantized(self._plain)
        refuse_non_finite({name: weight})
        return weight.T.contiguous() if self._is_turned(name) else weight

    def _plain(self, name: str) -> Tensor:
        """A tensor that is stored as ``name``, checked when it is first read."""
        location = self._location(name)
        entry = location.entry
        buffer = torch.empty(entry.end - entry.start, dtype=torch.uint8)
        self._fill(buffer, location, 0, name)
        tensor = buffer.view(TORCH_TYPES[entry.dtype]).view(entry.shape)
        if name not in self._finite:
            refuse_non_finite({name: tensor})
            self._finite.add(name)
        return tensor

    def _fill(self, buffer: Tensor, location: Location, start: int, name: str) -> None:
        """Read the bytes of a tensor from ``start`` on into ``buffer``; ``name`` is for the error."""
        path = location.path
        try:
            count = self._files.read_into(buffer.numpy().data, path, location.entry.start + start)
        except OSError as error:
            unreadable = CheckpointError(f"cannot read tensor {name!r} from {path}", why=str(error))
            raise memory_shortage(error) or unreadable from error
        if count < len(buffer):
            raise CheckpointError(f"{path} shrank while it was read: tensor {name!r} is cut short")

    def _location(self, name: str) -> Location:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        return self._tensors[name]


def _without_forms(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` of a model whose weights are floats; what it says of the key/value cache stays."""
    settings = config.pop("quantization_config", None)
    cache = settings.get("kv_cache_scheme") if isinstance(settings, dict) else None
    return config if cache is None else {**config, "quantization_config": {"kv_cache_scheme": cache}}


def content_hash(path: Path) -> str:
    """Hash of a checkpoint's directory or of a file; empty where there is none."""
    if path.is_dir():
        return CheckpointReader.open(path).fingerprint()
    return sha256_file(path) if path.is_file() else ""
