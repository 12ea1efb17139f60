"""Whether what edgepress wrote is as it was published: every byte of a directory against its manifest."""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...files.hashed_tree import check_tree
from ...files.storage import named_path, sha256_file
from .directory import (
    BUNDLE_SCHEMA,
    CHECKPOINT_MANIFEST,
    CHECKPOINT_SCHEMA,
    MANIFEST,
    PACKAGE_SCHEMA,
    SAVED_SCHEMA,
    BundleManifest,
    HashedTree,
    manifest_json,
    parse,
    read_manifest,
    readable,
    unlisted,
)
from .onnx_wire import link_problems

Kind = Literal["bundle", "saved", "checkpoint", "package"]


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_directory` found. ``problems`` are sentences; none: every byte is as published."""

    path: Path
    kind: Kind
    manifest_sha256: str
    files: int
    bytes: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "manifest_sha256": self.manifest_sha256,
            "files": self.files,
            "bytes": self.bytes,
            "problems": list(self.problems),
            "ok": not self.problems,
        }


def verify_directory(path: Path | str) -> Verification:
    """Hash every file of a bundle, a model saved for another runtime, a package of bundles or a compressed
    checkpoint, and compare with its manifest.
    """
    root = named_path(path)
    if root.is_file():
        raise _single_file(root)
    name = next((one for one in (MANIFEST, CHECKPOINT_MANIFEST) if os.path.lexists(root / one)), None)
    if name is None:
        raise InputError(
            f"{root} has nothing to verify against",
            why=f"it holds neither {MANIFEST} (of an export) nor {CHECKPOINT_MANIFEST} (of a compressed "
            "checkpoint)",
            fix="give a directory that `edgepress compress` or `edgepress export` wrote",
        )
    with readable(root):
        name = CHECKPOINT_MANIFEST if _is_package(root) else name
        raw = read_manifest(root / name)
        kind, manifest = _parsed(manifest_json(raw, root / name), root / name)
        problems = check_tree(root, manifest.hashes(), skip=unlisted(root, name))
        if kind == "bundle":
            problems += link_problems(root, manifest.files)
    return Verification(
        path=root,
        kind=kind,
        manifest_sha256=hashlib.sha256(raw).hexdigest(),
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files.values()),
        problems=tuple(dict.fromkeys(problems)),
    )


def _is_package(root: Path) -> bool:
    """Whether the other manifest is ONNX Runtime's, of a package."""
    path = root / CHECKPOINT_MANIFEST
    if not path.is_file() or path.is_symlink():
        return False
    document = manifest_json(read_manifest(path), path)
    return isinstance(document, dict) and document.get("schema") == PACKAGE_SCHEMA


def _parsed(document: Any, path: Path) -> tuple[Kind, HashedTree]:
    if isinstance(document, dict) and document.get("schema") == PACKAGE_SCHEMA:
        return "package", parse(HashedTree, document, schema=PACKAGE_SCHEMA, where=str(path))
    if path.name == CHECKPOINT_MANIFEST:
        return "checkpoint", parse(HashedTree, document, schema=CHECKPOINT_SCHEMA, where=str(path))
    if isinstance(document, dict) and document.get("schema") == SAVED_SCHEMA:
        return "saved", parse(HashedTree, document, schema=SAVED_SCHEMA, where=str(path))
    return "bundle", parse(BundleManifest, document, schema=BUNDLE_SCHEMA, where=str(path))


def _single_file(path: Path) -> InputError:
    beside = (path.parent / MANIFEST).is_file() or (path.parent / CHECKPOINT_MANIFEST).is_file()
    with readable(path):
        found = sha256_file(path)
    return InputError(
        f"{path} is a single file, and its manifest lies beside it where it was written",
        why=f"its SHA-256 is {found}",
        fix=f"edgepress verify {shlex.quote(str(path.parent))}"
        if beside
        else f"compare that with `files` in {MANIFEST} of the directory that it was exported to",
    )
