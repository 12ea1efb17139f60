"""The journal of a sweep: which units are finished, with the hash of everything they left, so that a kill
costs one unit.

Files with their own hash, so that a resumed run knows that not a bit of them has changed: JSON has it as a
key, bytes have it at their end.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.storage import canonical_json, open_regular, read_json, sha256_file, sha256_json, write_atomic

WORK = "work"  # the directory in the staging directory with all that a resumed run reads
FILE = "journal.json"
MODEL_HASH = "model-hash.json"
# Nothing without a journal that says which of it is whole.
_JOURNALLED = {FILE, MODEL_HASH, "activations", "parts", "masks"}
_SEAL = "sha256"
# Of the SHA-256 at the end of a file.
SEAL_BYTES = 32


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


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its own hash in it."""
    plain = json.loads(canonical_json(content))  # as it will be read: keys are texts, and sorted as such
    whole = {**plain, _SEAL: sha256_json(plain)}
    # Without indents json's fast encoder is taken: a journal is written after each of many units.
    write_atomic(path, json.dumps(whole, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What :func:`write_sealed` wrote; None where the file is missing, damaged or none of its own."""
    try:
        found = read_json(path)
        seal = found.pop(_SEAL)
        return found if seal == sha256_json(found) else None
    except (InputError, AttributeError, TypeError, KeyError, ValueError):  # no JSON, no object, no Unicode
        return None


def append_seal(stream: io.BufferedRandom) -> None:
    """Append the SHA-256 of a file, open for reading and writing, to it."""
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").digest()
    stream.seek(0, os.SEEK_END)
    stream.write(digest)


def sealed(content: bytes) -> bytes:
    """``content`` with its SHA-256 behind it."""
    return content + hashlib.sha256(content).digest()


def ends_with_seal(path: Path) -> bool:
    """Whether the file at ``path`` is there, and ends with the SHA-256 of what stands before."""
    if not path.exists():
        return False
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        left = os.fstat(stream.fileno()).st_size - SEAL_BYTES
        while left > 0 and (data := stream.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        return left == 0 and stream.read() == digest.digest()
