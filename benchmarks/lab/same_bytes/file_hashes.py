"""SHA-256 of every file of a directory, and of every field of its manifests.

A file's hash is of its raw bytes; nothing is normalised. Of the JSON manifests each field is hashed too, so
that a comparison can say which field of an ``edgepress.json`` differs. Where names of passes stand among
numbers, in the layers and steps of manifests and in ``train.jsonl``, the hash without the names stands beside
the other: a pass that was merged into another has another name there.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ....files.storage import lines_of, sha256_file

MANIFESTS = ("edgepress.json", "manifest.json")
LOG = "train.jsonl"
# Fields of manifests that are looked into: what they say comes from several places.
NESTED = ("source", "tool", "run")
# Fields that list what passes did, and the key under which each entry has the pass's name.
NAMED = {"layers": "step", "steps": "pass"}
WITHOUT_NAMES = " without names"


def hashes_of(directory: Path, prefix: str = "") -> dict[str, str]:
    """``{prefix + file: sha256}``, and ``{prefix + manifest#field: sha256}``."""
    found: dict[str, str] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = prefix + path.relative_to(directory).as_posix()
            found[name] = sha256_file(path)
            if path.name in MANIFESTS:
                fields = _fields(json.loads(path.read_bytes()))
                found |= {f"{name}#{key}": json_hash(value) for key, value in fields.items()}
            if path.name == LOG:
                lines = [json.loads(line) for line in lines_of(path.read_text(encoding="utf-8"))]
                found[name + WITHOUT_NAMES] = json_hash(_nameless(lines, "pass"))
    return found


def _fields(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in manifest.items():
        if key in NESTED and isinstance(value, dict):
            found |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            found[key] = value
        if key in NAMED:
            found[key + WITHOUT_NAMES] = _nameless(value, NAMED[key])
    return found


def _nameless(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != key} for entry in entries]


def json_hash(value: object) -> str:
    """Of the canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
