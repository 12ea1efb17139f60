"""The tensors of a checkpoint directory by name, in one safetensors file or many, checked before anything
is loaded.

With shards, ``model.safetensors.index.json`` says which file holds which tensor. It is accepted only where
every shard agrees: nothing missing, nothing extra, nothing twice, and no file outside the directory. Each
file is opened once: its header is checked and its tensors are read through the same descriptor.
"""

import hashlib
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar, cast

import torch

from ....errors import CheckpointError, RefusedByPolicy
from ....files.storage import open_regular, read_json
from ....terminal.progress import Tick, unseen
from .header import TensorEntry, read_header, read_metadata
from .policy import inside
from .tensor_check import TORCH_TYPES, NonFinite

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
# By name, how those that transformers does not open are converted: hqq's ``save_quantized``.
_CONVERTED = {
    "qmodel.pt": "hqq's AutoHQQHFModel.save_to_safetensors(AutoHQQHFModel.from_quantized(DIR, "
    "device='cpu', compute_dtype=torch.float32), NEW_DIR)",
}
# Descriptors that one checkpoint holds: far below the 256 files that macOS lets a process open. Windows
# neither renames nor deletes a file that is open, so that there none is held from one reading to the next.
HELD = 0 if sys.platform == "win32" else 32
_Found = TypeVar("_Found")
AT_ONCE = 4 << 20  # bytes that are looked at at once: whole numbers of any type


@dataclass(frozen=True)
class Location:
    """Where the bytes of one tensor are."""

    path: Path
    entry: TensorEntry


class ShardFiles:
    """The weight files of one checkpoint, opened when they are first read and closed with their last reader.

    What was checked is what is read: a file that is renamed over goes on as it was. Of more files than
    ``held`` the one unread for longest is closed, and opened again only while it is the same file.
    """

    def __init__(self, held: int = HELD) -> None:
        self._held = held
        self._open: OrderedDict[Path, FileIO] = OrderedDict()
        self._identities: dict[Path, tuple[int, ...]] = {}
        self._digests: dict[tuple[int, ...], str] = {}
        self._lock = Lock()  # one position a descriptor, whatever the number of threads
        weakref.finalize(self, _close, self._open)

    def header(self, path: Path) -> dict[str, TensorEntry]:
        """The tensors of the file ``path`` by name."""
        return self._of_header(path, read_header)

    def metadata(self, paths: Iterable[Path]) -> dict[str, str]:
        """The texts by name that the headers of ``paths`` have beside their tensors; where several have one
        of a name, the last of them in the order of paths counts. As :meth:`header`.
        """
        found: dict[str, str] = {}
        for path in sorted(paths):
            found |= self._of_header(path, read_metadata)
        return found

    def _of_header(self, path: Path, reading: Callable[[BinaryIO, Path], _Found]) -> _Found:
        try:
            with self._stream(path) as stream:
                return reading(cast(BinaryIO, stream), path)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}", why=str(error)) from error

    def read_into(self, view: memoryview, path: Path, start: int) -> int:
        """Fill ``view`` with the bytes of ``path`` from ``start``; returns how many there were."""
        with self._stream(path) as stream:
            stream.seek(start)
            return _fill(view, stream)

    def expect(self, path: Path, start: int, size: int) -> None:
        """Have the system read ``size`` bytes of ``path`` from ``start`` in the background; where it cannot,
        nothing happens.
        """
        if hasattr(os, "posix_fadvise"):
            with self._stream(path) as stream:
                os.posix_fadvise(stream.fileno(), start, size, os.POSIX_FADV_WILLNEED)

    def sha256(
        self, path: Path, tensors: Iterable[tuple[str, TensorEntry]], seen: NonFinite, tick: Tick = unseen
    ) -> str:
        """Hex SHA-256 of the file's bytes, computed again only when the file has changed; the values of its
        ``tensors`` are shown to ``seen`` on the way, and ``tick`` receives their bytes.
        """
        with self._stream(path) as stream:
            identity = _identity(stream)
            if identity not in self._digests:
                stream.seek(0)
                digest, buffer = hashlib.sha256(), torch.empty(AT_ONCE, dtype=torch.uint8)
                # A header is followed by tensors without a hole: see :mod:`.header`.
                ordered = sorted(tensors, key=lambda item: item[1].start)
                digest.update(stream.read(ordered[0][1].start if ordered else -1))
                for name, entry in ordered:
                    for start in range(entry.start, entry.end, AT_ONCE):
                        part = buffer[: min(AT_ONCE, entry.end - start)]
                        if _fill(part.numpy().data, stream) < len(part):
                            raise CheckpointError(f"{path} shrank while it was read")
                        digest.update(part.numpy().data)
                        seen.see(name, part.view(TORCH_TYPES[entry.dtype]))
                        tick(len(part))
                if seen.found:  # not kept: who asks again must hear of it again
                    return digest.hexdigest()
                self._digests[identity] = digest.hexdigest()
            return self._digests[identity]

    def close(self) -> None:
        """Close every file; reading opens it again."""
        with self._lock:
            _close(self._open)

    @contextmanager
    def _stream(self, path: Path) -> Iterator[FileIO]:
        with self._lock:
            if path not in self._open:
                self._open[path] = cast(FileIO, open_regular(path).detach())
                found = _identity(self._open[path])
                if self._identities.setdefault(path, found) != found:
                    self._open.pop(path).close()
                    raise CheckpointError(
                        f"{path} was changed while it was read", fix="leave it alone and start again"
                    )
            self._open.move_to_end(path)
            try:
                yield self._open[path]
            finally:
                while len(self._open) > self._held:
                    self._open.popitem(last=False)[1].close()


def _fill(view: memoryview, stream: FileIO) -> int:
    done = 0
    while done < len(view) and (count := stream.readinto(view[done:])):
        done += count
    return done


def _identity(stream: FileIO) -> tuple[int, ...]:
    found = os.fstat(stream.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _close(streams: OrderedDict[Path, FileIO]) -> None:
    while streams:
        streams.popitem()[1].close()


def locate(directory: Path, files: ShardFiles) -> dict[str, Location]:
    """Every tensor of the checkpoint in ``directory``, whose headers are read from ``files``. One whole file
    wins over an index, as in transformers.
    """
    if (directory / SINGLE).exists():
        path = inside(directory, SINGLE)
        return {name: Location(path, entry) for name, entry in files.header(path).items()}
    if (directory / INDEX).exists():
        return _sharded(directory, files)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise refused_pickle(directory / pickles[0])
    if (directory / "model.onnx").exists():
        raise CheckpointError(
            f"{directory} is a bundle or another export to ONNX, and model.onnx is not read again",
            fix="give the checkpoint that it was exported from; a bundle is run by `edgepress generate` or "
            "`encode`, and measured by `edgepress profile`",
        )
    found = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"{directory} has no weights: neither {SINGLE} nor {INDEX}",
        why=f"it holds {found}",
        fix=_in_folders(directory)
        or "give a directory that save_pretrained or a whole download wrote, or the path of a .gguf file",
    )


def _in_folders(directory: Path) -> str:
    """Which folders of ``directory`` hold weights, as the way out of an error; "" if none does."""
    holding = {path.parent for name in (SINGLE, INDEX) for path in directory.glob(f"*/{name}")}
    return "give one of its folders: " + ", ".join(map(str, sorted(holding)[:3])) if holding else ""


def refused_pickle(path: Path) -> RefusedByPolicy:
    """The refusal of a pickle file, with the way out."""
    convert = _CONVERTED.get(
        path.name, "AutoModelForCausalLM.from_pretrained(DIR, weights_only=True).save_pretrained(NEW_DIR)"
    )
    return RefusedByPolicy(
        f"{path} is a pickle file, and reading a pickle can run any code that its author put there",
        fix=f"convert it where nothing can be lost (a container without network or secrets): {convert}; "
        "then give edgepress NEW_DIR, which has model.safetensors",
    )


def _sharded(directory: Path, files: ShardFiles) -> dict[str, Location]:
    index = inside(directory, INDEX)
    weight_map = _weight_map(index)
    by_shard: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        by_shard.setdefault(shard, set()).add(tensor)
    located: dict[str, Location] = {}
    for shard, expected in sorted(by_shard.items()):
        path = _shard(directory, shard, expected)
        entries = files.header(path)
        _check_shard(path, entries.keys(), expected, weight_map)
        located.update({name: Location(path, entry) for name, entry in entries.items()})
    return located


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map from tensor names to shards")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.isprintable() or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} maps tensor {tensor!a} to {str(shard)[:80]!a}, not a .safetensors file"
            )
    return weight_map


def _shard(directory: Path, name: str, expected: set[str]) -> Path:
    path = inside(directory, name)
    if not path.is_file():
        raise CheckpointError(
            f"shard {name} is missing from {directory}",
            why=f"{INDEX} says it holds {len(expected)} tensors, {min(expected)!a} among them",
            fix="finish the download: every shard that the index names is needed",
        )
    return path


def _check_shard(path: Path, held: Set[str], expected: set[str], weight_map: dict[str, str]) -> None:
    if missing := expected - held:
        raise CheckpointError(
            f"tensor {min(missing)!r} is not in shard {path}, where the index puts it ({len(missing)} such)",
            fix="index and shards come from different saves: fetch all of them again",
        )
    if extra := held - expected:
        name = min(extra)
        home = f"the index puts it into {weight_map[name]}" if name in weight_map else "the index omits it"
        raise CheckpointError(
            f"shard {path} holds the unexpected tensor {name!r}: {home} ({len(extra)} such)",
            fix="index and shards come from different saves: fetch all of them again",
        )
