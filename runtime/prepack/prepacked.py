"""Prepacked weights: graphs as the kernels of this machine want them, in a cache below the user's own.

A session repacks quantized weights for the CPU that it finds, into its process's own memory. An entry of this
cache is the optimized graph with the repacked weights in a file, which is mapped: its pages are shared by all
processes, and the kernel may drop them. An entry belongs to one CPU, one ONNX Runtime, one configuration and
one graph, whose hashes are its name. It appears whole (see :mod:`.prepack`), is checked before it is used,
and is deleted when it is not what its manifest says: the graphs before a library parses them, the weights in
blocks, by whoever opens a graph that has them, before anything is answered.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...errors import BundleError, InputError
from ...storage import cache_directory, read_json, sha256_json
from ..bundle.bundle import Bundle
from ..bundle.directory import MANIFEST
from ..session.cpu_features import cpu_identity
from ..session.session import graph_form, onnxruntime

SCHEMA = "edgepress.prepacked/6"
GRAPH = "model.onnx"
PREFILL = "prefill.onnx"
# Below this, an entry saves less memory and time than it costs to look after.
SMALLEST = 32 << 20
# Bytes of a file that have a hash of their own.
BLOCK = 4 << 20


class DamagedCopy(RuntimeWarning):
    """An entry of the cache is not as it was written; nothing that it held was used."""


def folder() -> Path:
    """Where the entries are."""
    return cache_directory() / "prepacked"


@dataclass(frozen=True)
class PrepackedEntry:
    """The graphs of a bundle, prepacked. ``name`` is the model's and ``scheme`` its quantization, for tables;
    ``last_used`` in seconds since the epoch; ``files`` what the manifest says of each file.
    """

    path: Path
    name: str
    scheme: str
    bytes: int
    last_used: float
    whole: bool
    files: dict[str, dict[str, Any]]

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    @property
    def prefill(self) -> Path:
        """The prefill graph, where the bundle has one."""
        return self.path / PREFILL

    def damage(self, name: str) -> str:
        """How the bytes of the file ``name`` differ from their hashes, or ""."""
        try:
            pairs = zip_longest(_blocks(self.path / name), self.files[name]["blocks"])
            wrong = next((number for number, (found, said) in enumerate(pairs) if found != said), None)
        except OSError as error:
            return str(error)
        return "" if wrong is None else f"block {wrong} of {name} does not match its SHA-256"

    def check_weights(self, graph: str) -> None:
        """Hash the file beside ``graph`` that has its weights.

        Raises:
            BundleError: a block of it is not as it was written.
        """
        name = f"{graph}.data"
        problem = self.damage(name) if name in self.files else ""
        if problem:
            raise BundleError(f"{self.path} is damaged", why=problem)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": str(self.path),
            "name": self.name,
            "scheme": self.scheme,
            "bytes": self.bytes,
            "last_used": self.last_used,
            "whole": self.whole,
        }

    def drop_damaged(self, why: str) -> None:
        """Remove it, with a warning that says why; without one if it has gone already."""
        if self.drop():
            warnings.warn(
                f"the prepacked copy in {self.path} was damaged ({why}): it is dropped, the bundle is used",
                DamagedCopy,
                stacklevel=2,
            )

    def drop(self) -> bool:
        """Remove it; whether it was there. Processes that have it mapped go on; one that is about to open it
        makes its own.
        """
        import shutil

        doomed = self.path.with_name(f".{self.path.name}.{os.getpid()}.dropped")
        try:
            self.path.rename(doomed)
        except OSError:
            return False  # another process was faster
        shutil.rmtree(doomed, ignore_errors=True)
        return True


def entry_path(bundle: Bundle) -> Path:
    """The directory of the entry for ``bundle`` on this machine, whether it exists or not."""
    decides = {
        "schema": SCHEMA,
        "cpu": cpu_identity(),
        "onnxruntime": onnxruntime().__version__,
        "form": graph_form(),
        "graph": bundle.graph_sha256,
    }
    return folder() / sha256_json(decides)[:32]


def worth(bundle: Bundle) -> bool:
    """Whether an entry saves more than it costs to look after: our own operators read weights as they lie."""
    return bundle.weight_bytes >= SMALLEST and not bundle.own_operators


def find(bundle: Bundle) -> PrepackedEntry | None:
    """The entry for ``bundle``, if there is a valid one; one that is damaged is deleted."""
    entry = _read(entry_path(bundle))
    if entry is None:
        return None
    if not entry.whole:
        entry.drop_damaged("its files are not those of its manifest")
        return None
    _touch(entry.path / MANIFEST)
    return entry


def entries() -> list[PrepackedEntry]:
    """All of them, the least recently used first."""
    found = (_read(path) for path in _directories())
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.last_used)


def describe(path: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file in ``path``: bytes, and the hash of each :data:`BLOCK` of them."""
    return {
        file.name: {"bytes": file.stat().st_size, "blocks": list(_blocks(file))}
        for file in sorted(path.iterdir())
    }


def _blocks(path: Path) -> Iterator[str]:
    """Hex SHA-256 of each block. They are read: a mapped file that is cut short would end the process."""
    block = memoryview(bytearray(BLOCK))
    with path.open("rb") as stream:
        while count := stream.readinto(block):
            yield hashlib.sha256(block[:count]).hexdigest()


def _directories() -> Iterator[Path]:
    if folder().is_dir():
        yield from (path for path in folder().iterdir() if not path.name.startswith("."))


def _read(path: Path) -> PrepackedEntry | None:
    """None where nothing is, or what belongs to somebody else; an entry that is not ``whole`` for ruins."""
    try:
        if not path.is_dir() or not _our_own(path):
            return None
        used = path.stat().st_mtime
        size = sum(file.stat().st_size for file in path.iterdir())
    except OSError:
        return None
    try:
        manifest = read_json(path / MANIFEST)
        used = (path / MANIFEST).stat().st_mtime
        name, scheme, files = str(manifest["name"]), str(manifest["scheme"]), manifest["files"]
        entry = PrepackedEntry(path, name, scheme, size, used, whole=True, files=files)
        whole = manifest["schema"] == SCHEMA and _as_written(entry)
    except (InputError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return PrepackedEntry(path, "?", "?", size, used, whole=False, files={})
    return replace(entry, whole=whole)


def _as_written(entry: PrepackedEntry) -> bool:
    """The names and sizes of all files, and the hashes of the graphs."""
    sizes = {file.name: file.lstat().st_size for file in entry.path.iterdir() if file.name != MANIFEST}
    said = {name: item["bytes"] for name, item in entry.files.items() if isinstance(item["blocks"], list)}
    graphs = [name for name in (GRAPH, PREFILL) if name in said]
    return sizes == said and GRAPH in graphs and not any(map(entry.damage, graphs))


def _our_own(path: Path) -> bool:
    """Whether nobody else can have written it: a graph is as good as code."""
    if sys.platform == "win32":
        return True
    owned = (path.lstat(), path.parent.lstat())
    return all(status.st_uid == os.getuid() and not status.st_mode & 0o022 for status in owned)


def _touch(path: Path) -> None:
    """Note the use. A cache on a read-only disk can still be used."""
    try:
        os.utime(path)
    except OSError:
        return


class BackgroundPrepacking:
    """Called after each generation: starts prepacking once, in another process, unless there is an entry."""

    def __init__(self, bundle: Bundle, *, wanted: bool) -> None:
        self._bundle, self._wanted = bundle, wanted

    def __call__(self) -> None:
        if self._wanted:
            self._wanted = False
            if worth(self._bundle) and find(self._bundle) is None:
                from .prepack import prepack_later

                prepack_later(self._bundle)
