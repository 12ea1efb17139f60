"""The journal of a sweep: which units are finished, with the hash of everything they left, so that a kill
costs one unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files.storage import sha256_file
from .sealed import read_sealed, write_sealed

WORK = "work"  # the directory in the staging directory with all that a resumed run reads
FILE = "journal.json"
MODEL_HASH = "model-hash.json"
# Nothing without a journal that says which of it is whole.
_JOURNALLED = {FILE, MODEL_HASH, "activations", "parts", "masks"}


class Journal:
    """A JSON file rewritten atomically after each unit.

    ``key`` is the hash of source, recipe, calibration and code version: a journal with another key belongs to
    other work.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.key = directory, key
        self.path = directory / FILE
        self.units: list[dict[str, Any]] = []

    @classmethod
    def open(cls, directory: Path, key: str) -> Journal:
        """The journal in ``directory`` with the units whose files are still what they were."""
        journal = cls(directory, key)
        found = read_sealed(journal.path)
        if found is not None and found.get("key") == key:
            journal.units = list(found["units"])
        return journal

    def belongs_to_other(self) -> bool:
        """Whether the directory holds a journal that is damaged or of other work."""
        return self.path.exists() and (read_sealed(self.path) or {}).get("key") != self.key

    def claim(self) -> None:
        """Make the directory this work's, before any unit is finished."""
        if not self.path.exists():
            write_sealed(self.path, {"key": self.key, "units": []})

    def intact(self, unit: Mapping[str, Any], kind: str) -> bool:
        """Whether the files of ``kind`` (``part``, ``activations``) that a unit left are unchanged."""
        files: Mapping[str, str] = unit[kind]
        paths = ((self.directory / name, digest) for name, digest in files.items())
        return all(path.is_file() and sha256_file(path) == digest for path, digest in paths)

    def resume(self) -> int:
        """How many leading units can be kept: all shards intact, and the last one's activations too."""
        count = 0
        for unit in self.units:
            if not self.intact(unit, "part"):
                break
            count += 1
        if count < len(self.units) or (self.units and not self.intact(self.units[-1], "activations")):
            # Only the newest activations are kept, so what follows a damaged unit cannot be continued.
            count = 0
        self.units = self.units[:count]
        return count

    def add(self, unit: dict[str, Any]) -> None:
        """Record a finished unit; its files must be on disk."""
        self.units.append(unit)
        write_sealed(self.path, {"key": self.key, "units": self.units})

    def hashes(self, paths: list[Path]) -> dict[str, str]:
        """``{name relative to the journal: sha256}``."""
        return {path.relative_to(self.directory).as_posix(): sha256_file(path) for path in paths}


def worth_resuming(staging: Path) -> bool:
    """Whether a resumed run finds anything finished in the staging directory: a unit in a journal, a whole
    checkpoint, the state of a training, an answer of the teacher.
    """
    for path in (staging / WORK).rglob("*"):
        parts = path.relative_to(staging / WORK).parts
        if path.name == FILE:
            if b'"units": []' not in path.read_bytes():
                return True
        elif path.is_file() and not _JOURNALLED.intersection(parts) and path.suffix != ".tmp":
            return True
    return False
