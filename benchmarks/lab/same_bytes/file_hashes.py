"""SHA-256 of every file of a directory, and of every field of its manifests.

A file's hash is of its raw bytes; nothing is normalised. Of the JSON manifests each field is hashed too, so
that a comparison can say which field of an ``edgepress.json`` differs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFESTS = ("edgepress.json", "manifest.json")
# Fields of them that are looked into: what they say comes from several places.
NESTED = ("source", "tool", "run")


def hashes_of(directory: Path, prefix: str = "") -> dict[str, str]:
    """``{prefix + file: sha256}``, and ``{prefix + manifest#field: sha256}``."""
    found: dict[str, str] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = prefix + path.relative_to(directory).as_posix()
            found[name] = file_hash(path)
            if path.name in MANIFESTS:
                fields = _fields(json.loads(path.read_bytes()))
                found |= {f"{name}#{key}": json_hash(value) for key, value in fields.items()}
    return found


def _fields(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in manifest.items():
        inner = value if key in NESTED and isinstance(value, dict) else None
        found |= {key: value} if inner is None else {f"{key}.{name}": item for name, item in inner.items()}
    return found


def file_hash(path: Path) -> str:
    """Of the raw bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_hash(value: object) -> str:
    """Of the canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
