"""A directory with a manifest: the manifest is read, every file is compared with it, and links and files that
it does not list are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import BundleError, RefusedByPolicy
from ...files.hashed_tree import SIGNATURE, check_tree
from ...files.third_party_errors import memory_shortage
from . import typed_json
from .manifest import BundleManifest
from .onnx_wire import link_problems

MANIFEST = "manifest.json"
CHECKPOINT_MANIFEST = "edgepress.json"
_MANIFEST_LIMIT = 64 << 20
_SHOWN_PROBLEMS = 8


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system raises inside, as a BundleError about ``path``."""
    try:
        yield
    except OSError as error:
        raise memory_shortage(error) or BundleError(f"cannot read {path}", why=str(error)) from None


def read_manifest(path: Path) -> bytes:
    """The bytes of the manifest at ``path``."""
    if not path.is_file() or path.is_symlink():
        raise _no_bundle(path)
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise BundleError(f"{path} is larger than {_MANIFEST_LIMIT >> 20} MB, too large for a manifest")
    return path.read_bytes()


def _no_bundle(path: Path) -> BundleError:
    """The refusal of a directory without the manifest ``path``: one that is not there, or something else."""
    root = path.parent
    why, given = f"it has no regular file {path.name}", "CHECKPOINT"
    if not os.path.lexists(root):
        why = "there is no such directory"
    elif (root / "config.json").is_file():
        why, given = "it is a checkpoint", str(root)
    return BundleError(
        f"{root} is not a bundle", why=why, fix=f"make one with: edgepress export {given} -o BUNDLE"
    )


def manifest_json(raw: bytes, path: Path) -> Any:
    """The manifest's bytes as JSON; ``path`` is for the error."""
    try:
        return typed_json.document(raw)
    except typed_json.Unusable as error:
        raise BundleError(f"{path} is not a usable manifest", why=str(error)) from None


def refuse_links(root: Path, manifest: BundleManifest) -> None:
    """Raise RefusedByPolicy for a listed file that is a link, or no file."""
    problems = link_problems(root, manifest.files)
    if problems:
        raise RefusedByPolicy(
            f"{root} holds links or what is no file",
            why="; ".join(problems[:_SHOWN_PROBLEMS]),
            fix="make a plain copy with: cp -rL BUNDLE COPY",
        )


def unlisted(root: Path, manifest: str) -> frozenset[str]:
    """The files that a manifest of this name cannot list: itself, and the signature over it."""
    signature = root / SIGNATURE
    signed = signature.is_file() and not signature.is_symlink()
    return frozenset({manifest, SIGNATURE} if signed else {manifest})


def refuse_differences(root: Path, manifest: BundleManifest, *, sizes_only: frozenset[str]) -> None:
    """Raise BundleError where a file differs from the manifest; of ``sizes_only`` the bytes are counted."""
    refuse(root, check_tree(root, manifest.hashes(), skip=unlisted(root, MANIFEST), sizes_only=sizes_only))


def refuse(root: Path, problems: list[str]) -> None:
    """Raise BundleError with the first of ``problems``, if there are any."""
    if problems:
        raise BundleError(
            f"{root} does not match its manifest",
            why="; ".join(problems[:_SHOWN_PROBLEMS]),
            fix="copy or export the bundle again; edgepress verify lists every difference",
        )


def refuse_foreign_data(graph: Path, foreign: set[str]) -> None:
    """Raise RefusedByPolicy when a graph keeps tensors in ``foreign`` files."""
    if foreign:
        raise RefusedByPolicy(
            f"{graph} keeps tensors in files that the manifest does not list",
            why=", ".join(repr(name[:80]) for name in sorted(foreign)[:_SHOWN_PROBLEMS]),
        )


def refuse_short_data(graph: Path, ends: dict[str, int]) -> None:
    """Raise BundleError when a graph reads as far as ``ends`` says and a file beside it is shorter."""
    sizes = {name: (graph.parent / name).stat().st_size for name in ends}
    beyond = [name for name in sorted(ends) if ends[name] > sizes[name]]
    if beyond:
        raise BundleError(
            f"{graph} keeps tensors beyond the end of its files",
            why="; ".join(
                f"it reads {ends[name]} bytes of {name}, which has {sizes[name]}" for name in beyond
            ),
            fix="copy or export the bundle again",
        )
