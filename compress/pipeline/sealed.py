"""Files with their own hash, so that a resumed run knows that not a bit of them has changed: JSON has it as a
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
from ...files.storage import canonical_json, open_regular, read_json, sha256_json, write_atomic

_SEAL = "sha256"


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


# Of the SHA-256 at the end of a file.
SEAL_BYTES = 32


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
