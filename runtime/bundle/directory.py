"""A directory with a manifest: the manifest is read, every file is compared with it, and links and files that
it does not list are refused.

The parts of a bundle's ``manifest.json`` that the runtime acts on, checked before anything is loaded.

Unknown keys are left alone, so that a newer exporter can say more; known keys must have their exact type and
a sane size, because their numbers decide how much memory is reserved and which files are opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from ...errors import BundleError, RefusedByPolicy
from ...files.hashed_tree import SIGNATURE, check_tree
from ...files.third_party_errors import memory_shortage
from . import typed_json
from .graph_sections import DecoderSection, EncoderDecoderSection, EncoderSection
from .onnx_wire import link_problems
from .typed_json import Unusable, by_name, choice, integer, optional, read, section, text

MANIFEST = "manifest.json"
CHECKPOINT_MANIFEST = "edgepress.json"
_MANIFEST_LIMIT = 64 << 20
_SHOWN_PROBLEMS = 8
BUNDLE_SCHEMA = "edgepress.bundle/1"
SAVED_SCHEMA = "edgepress.saved/1"  # what another runtime loads: GGUF, the BitNet form
CHECKPOINT_SCHEMA = "edgepress.checkpoint/1"
PACKAGE_SCHEMA = "edgepress.package/1"  # bundles as ONNX Runtime's model package
Kind = Literal["decoder", "encoder", "encoder_decoder"]


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


def _plain_name(name: Any, key: str) -> str:
    found = str(text()(name, key))
    parts = found.split("/")
    odd = "\\" in found or not found.isprintable() or any(part in ("", ".", "..") for part in parts)
    if odd or len(found) > 1024 or max(map(len, parts)) > 200:
        raise Unusable(key, f"{found[:60]!r} is not a plain file name within the directory")
    return found


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of one file."""

    sha256: Annotated[str, text("[0-9a-f]{64}")]
    bytes: Annotated[int, integer(0, 1 << 60)]


@dataclass(frozen=True, kw_only=True)
class HashedTree:
    """Any manifest that lists the files beside it: of a bundle, a compressed checkpoint or a saved model."""

    schema: Annotated[str, text()]
    files: Annotated[dict[str, FileEntry], by_name(_plain_name, section(FileEntry))]

    def hashes(self) -> dict[str, dict[str, Any]]:
        """``{name: {"sha256", "bytes"}}``, as :func:`edgepress.files.hashed_tree.check_tree` reads it."""
        return {name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in self.files.items()}


def _graph_name(name: Any, key: str) -> str:
    found = _plain_name(name, key)
    if not found.endswith(".onnx") or "/" in found:
        raise Unusable(key, f"{found!r} is not an ONNX file of the bundle's own directory")
    return found


@dataclass(frozen=True)
class Graph:
    """The ONNX file, of an encoder–decoder its decoder's and beside that its encoder's, and whose operators
    they have beside those of ONNX.
    """

    file: Annotated[str, _graph_name] = "model.onnx"
    encoder: Annotated[str | None, optional(_graph_name)] = None
    operators: Annotated[Literal["standard", "edgepress"], choice("standard", "edgepress")] = "standard"


@dataclass(frozen=True, kw_only=True)
class BundleManifest(HashedTree):
    """The whole of what the runtime reads."""

    kind: Annotated[Kind, choice("decoder", "encoder", "encoder_decoder")]
    name: Annotated[str, text()] = ""
    described: Annotated[str, text()] = ""
    scheme: Annotated[str, text()] = ""
    graph: Annotated[Graph, section(Graph)] = field(default_factory=Graph)
    decoder: Annotated[DecoderSection | None, optional(section(DecoderSection))] = None
    encoder: Annotated[EncoderSection | None, optional(section(EncoderSection))] = None
    encoder_decoder: Annotated[EncoderDecoderSection | None, optional(section(EncoderDecoderSection))] = None

    def __post_init__(self) -> None:
        if getattr(self, self.kind) is None:
            raise ValueError(f"a bundle of kind {self.kind!r} needs the section {self.kind!r}")
        if (self.kind == "encoder_decoder") != (self.graph.encoder is not None):
            raise ValueError(f"a bundle of kind {self.kind!r} has one graph too many, or too few")
        for graph in self.graphs:
            if graph not in self.files:
                raise ValueError(f"{graph!r} is not among the files")

    @property
    def graphs(self) -> list[str]:
        """The ONNX files."""
        return [self.graph.file, *([] if self.graph.encoder is None else [self.graph.encoder])]


Manifest = TypeVar("Manifest", bound=HashedTree)


def parse(model: type[Manifest], document: Any, *, schema: str, where: str) -> Manifest:
    """The ``document`` of a manifest called ``where`` as a ``model``, whose ``schema`` it must name."""
    named = document.get("schema") if isinstance(document, dict) else None
    if isinstance(named, str) and named != schema:
        other = (
            "it was exported for another runtime, which loads it: for a bundle, export the checkpoint to onnx"
        )
        raise BundleError(
            f"{where} has schema {named[:60]!r}, this version reads {schema!r}",
            fix=other if named == SAVED_SCHEMA else "export again with this version, or update edgepress",
        )
    try:
        return read(model, document)
    except Unusable as error:
        raise BundleError(f"{where} is not a usable manifest", why=str(error)) from None
