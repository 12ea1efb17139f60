"""``AnswerCache``: arrays that a model has answered with, in the user's cache, so that nobody computes them
twice.

An entry is a safetensors file with its SHA-256 behind it, under the hash of what it answers and of all that
decides on its bits. What is damaged, or is no file, counts as missing. Together the entries take at most
:data:`MOST` bytes: those that were not read for longest go first.

What decides on the bits of a model's answers: its files, the code and the libraries that compute with
them, and the processor.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ...compress.pipeline.journal import SEAL_BYTES, sealed
from ...errors import EdgepressError
from ...files.disk import free_disk
from ...files.storage import cache_directory, open_regular, sha256_file, sha256_json, write_atomic
from ...runtime.kernels.library import library
from ...runtime.session.cpu_features import first_processor
from ...terminal.progress import Progress

FOLDER = "originals"
MOST = 1 << 30  # bytes of all entries
LARGEST = MOST // 4  # of one: some texts and models have room
_SPARED = 1 << 30  # bytes of the disk that stay free
Arrays = Mapping[str, NDArray[Any]]
# Folders of edgepress whose code has a part in an answer.
_CODE = (
    *("benchmarks/quality", "benchmarks/records", "runtime"),
    *("compress/model", "compress/numbers", "compress/pipeline"),
)
_LIBRARIES = ("numpy", "pillow", "tokenizers", "torch", "transformers", "onnxruntime", "onnxruntime-gpu")
# Of variables that choose instructions or orders of summation.
_VARIABLES = ("ATEN_", "DNNL_", "EDGEPRESS_KERNELS", "MKL_", "ONEDNN_", "OPENBLAS_", "TORCH_")
_FIELDS = ("model name", "flags", "CPU part", "Features")


class AnswerCache:
    """The entries of one model.

    Args:
        owner: the hash of the model and of what computes, see :func:`.answer_cache.arithmetic_of`; None where
            nothing is kept.

    Attributes:
        used: what came from the cache, as records name it.
    """

    def __init__(self, owner: str | None) -> None:
        self.owner = owner
        self.used: list[str] = []

    def read(self, what: str, asked: Any) -> dict[str, NDArray[Any]] | None:
        """What :meth:`write` was given; None where that is missing, damaged, or no longer kept."""
        if self.owner is None:
            return None
        path = self._path(what, asked)
        try:
            with open_regular(path) as stream:
                if os.fstat(stream.fileno()).st_size > LARGEST:
                    return None
                data = stream.read()
            content = memoryview(data)[:-SEAL_BYTES]
            if hashlib.sha256(content).digest() != data[-SEAL_BYTES:]:
                return None
            found: dict[str, NDArray[Any]] = load(bytes(content))
        except (OSError, EdgepressError, SafetensorError, ValueError, KeyError):
            return None
        with suppress(OSError):  # a cache that others keep
            os.utime(path)
        return found

    def use(self, what: str) -> None:
        """Note that ``what`` was taken from here."""
        if what not in self.used:
            self.used.append(what)

    def say(self, progress: Progress) -> None:
        """Say what was taken from here."""
        if self.used:
            progress.note(f"from the cache, of the original: {', '.join(self.used)}")

    def write(self, what: str, asked: Any, arrays: Arrays) -> None:
        """Keep ``arrays``, whose bytes are few enough; where nothing can be written, nothing is kept."""
        if self.owner is None or sum(array.nbytes for array in arrays.values()) > LARGEST // 2:
            return
        path = self._path(what, asked)
        data = sealed(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        with suppress(OSError):  # the next one computes again
            path.parent.mkdir(parents=True, exist_ok=True)
            if free_disk(path.parent) > len(data) + _SPARED:
                write_atomic(path, data)
                _drop_oldest(path.parent)

    def _path(self, what: str, asked: Any) -> Path:
        return cache_directory() / FOLDER / sha256_json([self.owner, what, asked])


def _drop_oldest(folder: Path) -> None:
    """Remove entries until all of them fit."""
    entries = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process removed it
            status = path.lstat()
            entries.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MOST:
            return
        with suppress(OSError):
            path.unlink()
        total -= size


def arithmetic_of(model: str, runtime: Mapping[str, Any]) -> str:
    """The hash of the files of a ``model``, which is theirs, and of what computes: ``runtime`` as records
    name it, with its threads, the versions of libraries, this processor and its instructions."""
    operators = library()
    return sha256_json(
        [
            _code(),
            model,
            dict(runtime),
            None if operators is None else sha256_file(operators),
            {name: _version(name) for name in _LIBRARIES},
            {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
            _processor(),
        ]
    )


@cache
def _code() -> str:
    """The hash of edgepress's own."""
    package = Path(__file__).parents[2]
    files = sorted(file for folder in _CODE for file in (package / folder).rglob("*.py"))
    return sha256_json([sha256_file(file) for file in files])


def _version(library: str) -> str | None:
    try:
        return version(library)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None


def _processor() -> list[Any]:
    """The first processor's name and instructions."""
    said = first_processor()
    known = {name: said[name] for name in _FIELDS if name in said}
    return [platform.machine(), known or platform.processor()]
