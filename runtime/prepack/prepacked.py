"""Prepacked weights: graphs as the kernels of this machine want them, in a cache below the user's own.

A session repacks quantized weights for the CPU that it finds, into its process's own memory. An entry of this
cache is the optimized graph with the repacked weights in a file, which is mapped: its pages are shared by all
processes, and the kernel may drop them. An entry belongs to one CPU, one ONNX Runtime, one configuration and
one graph, whose hashes are its name. It appears whole (see :mod:`.prepack`), is
checked before it is used, and is deleted when it is not what its manifest says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...storage import cache_directory, read_json, sha256_file, sha256_json
from ..bundle.bundle import Bundle
from ..bundle.directory import MANIFEST
from ..session.cpu_features import cpu_identity
from ..session.session import graph_form, onnxruntime

SCHEMA = "edgepress.prepacked/5"
GRAPH = "model.onnx"
PREFILL = "prefill.onnx"
# Below this, an entry saves less memory and time than it costs to look after.
SMALLEST = 32 << 20


def folder() -> Path:
    """Where the entries are."""
    return cache_directory() / "prepacked"


@dataclass(frozen=True)
class PrepackedEntry:
    """One graph, prepacked. ``name`` is the model's and ``scheme`` its quantization, for tables;
    ``last_used`` in seconds since the epoch; ``without_prefill`` is why the prefill graph of the bundle is
    not in it.
    """

    path: Path
    name: str
    scheme: str
    bytes: int
    last_used: float
    whole: bool
    without_prefill: str | None = None

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    @property
    def prefill(self) -> Path:
        """The prefill graph with its weights, where there was room for them."""
        return self.path / PREFILL

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": str(self.path),
            "name": self.name,
            "scheme": self.scheme,
            "bytes": self.bytes,
            "last_used": self.last_used,
            "whole": self.whole,
            "without_prefill": self.without_prefill,
        }

    def drop(self) -> None:
        """Remove it. Processes that have it mapped go on; one that is about to open it makes its own."""
        import shutil

        doomed = self.path.with_name(f".{self.path.name}.{os.getpid()}.dropped")
        try:
            self.path.rename(doomed)
        except OSError:
            return  # another process was faster
        shutil.rmtree(doomed, ignore_errors=True)


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
    """Whether an entry saves more than it costs to look after."""
    return bundle.weight_bytes >= SMALLEST


def find(bundle: Bundle) -> PrepackedEntry | None:
    """The entry for ``bundle``, if there is a valid one; one that is damaged is deleted."""
    entry = _read(entry_path(bundle))
    if entry is None:
        return None
    if not entry.whole:
        entry.drop()
        return None
    _touch(entry.path / MANIFEST)
    return entry


def entries() -> list[PrepackedEntry]:
    """All of them, the least recently used first."""
    found = (_read(path) for path in _directories())
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.last_used)


def describe(path: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file in ``path``: bytes, hash, and when it was last written."""
    return {
        file.name: {
            "bytes": file.stat().st_size,
            "mtime_ns": file.stat().st_mtime_ns,
            "sha256": sha256_file(file),
        }
        for file in sorted(path.iterdir())
    }


def damage(entry: PrepackedEntry) -> list[str]:
    """What differs from the hashes in its manifest, as sentences: reads every byte, which no start does."""
    files = read_json(entry.path / MANIFEST)["files"]
    return [
        f"{name} does not match its SHA-256"
        for name, said in files.items()
        if sha256_file(entry.path / name) != said["sha256"]
    ]


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
        whole = manifest["schema"] == SCHEMA and _as_written(path, manifest["files"])
        name, scheme = str(manifest["name"]), str(manifest["scheme"])
        without = manifest["without_prefill"]
    except (InputError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return PrepackedEntry(path, "?", "?", size, used, whole=False)
    return PrepackedEntry(path, name, scheme, size, used, whole, without)


def _as_written(path: Path, files: dict[str, dict[str, Any]]) -> bool:
    """Sizes and times of all files, and the hashes of the graphs. Weights are not read for a hash at each
    start; ONNX Runtime compares the repacked ones with what it would have made.
    """
    for name, said in files.items():
        status = (path / name).lstat()
        if (status.st_size, status.st_mtime_ns) != (said["bytes"], said["mtime_ns"]):
            return False
    graphs = [name for name in (GRAPH, PREFILL) if name in files]
    return GRAPH in graphs and all(sha256_file(path / name) == files[name]["sha256"] for name in graphs)


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
