"""Whether a bundle or a compressed checkpoint is as it was published: every byte against its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...storage import check_tree
from .directory import CHECKPOINT_MANIFEST, MANIFEST, manifest_json, read_manifest, readable
from .manifest import BUNDLE_SCHEMA, CHECKPOINT_SCHEMA, BundleManifest, HashedTree, parse
from .onnx_wire import link_problems


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_directory` found. ``problems`` are sentences; none: every byte is as published."""

    path: Path
    kind: Literal["bundle", "checkpoint"]
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
    """Hash every file of a bundle or compressed checkpoint and compare with its manifest.

    Raises:
        InputError: not a directory with a manifest; as BundleError when the manifest itself is unreadable.
        RefusedByPolicy: the manifest names files outside the directory.
    """
    root = Path(path)
    is_bundle = (root / MANIFEST).is_file()
    if not is_bundle and not (root / CHECKPOINT_MANIFEST).is_file():
        raise InputError(
            f"{root} has nothing to verify against",
            why=f"it holds neither {MANIFEST} (a bundle) nor {CHECKPOINT_MANIFEST} (a compressed checkpoint)",
        )
    name = MANIFEST if is_bundle else CHECKPOINT_MANIFEST
    with readable(root):
        raw = read_manifest(root / name)
        document = manifest_json(raw, root / name)
        if is_bundle:
            manifest: HashedTree = parse(
                BundleManifest, document, schema=BUNDLE_SCHEMA, where=str(root / name)
            )
        else:
            manifest = parse(HashedTree, document, schema=CHECKPOINT_SCHEMA, where=str(root / name))
        problems = check_tree(root, manifest.hashes(), skip=frozenset({name}))
        if is_bundle:
            problems += link_problems(root, manifest.files)
    return Verification(
        path=root,
        kind="bundle" if is_bundle else "checkpoint",
        manifest_sha256=hashlib.sha256(raw).hexdigest(),
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files.values()),
        problems=tuple(problems),
    )
