"""``Bundle``: an exported directory whose every file has been checked against its manifest.

Nothing of a bundle is parsed by a library before its hash is known to be right, and the graph can only open
files that the manifest lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import BundleError, InputError, RefusedByPolicy
from ..storage import check_tree
from .external_data import external_locations, link_problems
from .manifest import (
    BUNDLE_SCHEMA,
    CHECKPOINT_SCHEMA,
    BundleManifest,
    DecoderSection,
    EncoderSection,
    HashedTree,
    parse,
)

MANIFEST = "manifest.json"
CHECKPOINT_MANIFEST = "edgepress.json"
_MANIFEST_LIMIT = 64 << 20
_SHOWN_PROBLEMS = 8


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot read {path}", why=str(error)) from None


def _read_manifest(path: Path) -> bytes:
    if not path.is_file() or path.is_symlink():
        raise BundleError(
            f"{path.parent} is not a bundle",
            why=f"it has no regular file {path.name}",
            fix="make one with: edgepress export CHECKPOINT -o BUNDLE",
        )
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise BundleError(f"{path} is larger than {_MANIFEST_LIMIT >> 20} MB, too large for a manifest")
    return path.read_bytes()


@dataclass(frozen=True)
class Bundle:
    """A verified bundle directory. ``manifest`` is its whole JSON; the sections acted on are typed."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    manifest_sha256: str
    _checked: BundleManifest = field(repr=False)

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> Bundle:
        """Open the bundle at ``path``; ``verify=False`` skips the hashes, never the other checks.

        Raises:
            BundleError: no manifest, one that this version cannot read, or files that differ from it.
            RefusedByPolicy: a file is a link, or the graph points to a file outside the manifest.
        """
        root = Path(path)
        with _readable(root):
            raw = _read_manifest(root / MANIFEST)
            checked = parse(BundleManifest, raw, schema=BUNDLE_SCHEMA, where=str(root / MANIFEST))
            _refuse_links(root, checked)
            if verify:
                _refuse_differences(root, checked)
            _refuse_foreign_data(root, checked)
            return cls(root, json.loads(raw), hashlib.sha256(raw).hexdigest(), checked)

    @property
    def kind(self) -> Literal["decoder", "encoder"]:
        """Whether it generates text or embeds it."""
        return self._checked.kind

    @property
    def name(self) -> str:
        """The model's name, for tables; the directory's when the manifest has none."""
        return self._checked.name or self.path.name

    @property
    def scheme(self) -> str:
        """How its weights are stored: ``W4A16-g64 gptq``."""
        return self._checked.scheme

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / self._checked.graph.file

    @property
    def disk_bytes(self) -> int:
        """Bytes of all its files, the manifest's own included."""
        return (
            sum(entry.bytes for entry in self._checked.files.values()) + (self.path / MANIFEST).stat().st_size
        )

    @property
    def decoder(self) -> DecoderSection:
        """The decoder's sizes and token ids.

        Raises:
            InputError: it is an encoder; says what to call instead.
        """
        if self.kind != "decoder" or self._checked.decoder is None:
            raise InputError(
                f"{self.path} is an encoder: it embeds text and cannot generate it",
                fix="use: edgepress encode BUNDLE TEXT…",
            )
        return self._checked.decoder

    @property
    def encoder(self) -> EncoderSection:
        """The encoder's pooling and limits.

        Raises:
            InputError: it is a decoder; says what to call instead.
        """
        if self.kind != "encoder" or self._checked.encoder is None:
            raise InputError(
                f"{self.path} is a decoder: it generates text and has no embeddings",
                fix='use: edgepress generate BUNDLE --prompt "…"',
            )
        return self._checked.encoder


def _refuse_links(root: Path, manifest: BundleManifest) -> None:
    problems = link_problems(root, manifest.files)
    if problems:
        raise RefusedByPolicy(
            f"{root} holds links",
            why="; ".join(problems[:_SHOWN_PROBLEMS]),
            fix="make a plain copy with: cp -rL BUNDLE COPY",
        )


def _refuse_differences(root: Path, manifest: BundleManifest) -> None:
    problems = check_tree(root, manifest.hashes(), skip=frozenset({MANIFEST}))
    if problems:
        raise BundleError(
            f"{root} does not match its manifest",
            why="; ".join(problems[:_SHOWN_PROBLEMS]),
            fix="copy or export the bundle again; edgepress verify lists every difference",
        )


def _refuse_foreign_data(root: Path, manifest: BundleManifest) -> None:
    graph = root / manifest.graph.file
    foreign = sorted(external_locations(graph) - set(manifest.files))
    if foreign:
        raise RefusedByPolicy(
            f"{graph} keeps tensors in files that the manifest does not list",
            why=", ".join(repr(name[:80]) for name in foreign[:_SHOWN_PROBLEMS]),
        )


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
    with _readable(root):
        raw = _read_manifest(root / name)
        if is_bundle:
            manifest: HashedTree = parse(BundleManifest, raw, schema=BUNDLE_SCHEMA, where=str(root / name))
        else:
            manifest = parse(HashedTree, raw, schema=CHECKPOINT_SCHEMA, where=str(root / name))
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
