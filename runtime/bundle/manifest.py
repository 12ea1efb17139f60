"""The parts of a bundle's ``manifest.json`` that the runtime acts on, checked before anything is loaded.

Unknown keys are left alone, so that a newer exporter can say more; known keys must have their exact type and
a sane size, because their numbers decide how much memory is reserved and which files are opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from ...errors import BundleError
from .graph_sections import DecoderSection, EncoderDecoderSection, EncoderSection
from .typed_json import Unusable, by_name, choice, integer, optional, read, section, text

BUNDLE_SCHEMA = "edgepress.bundle/1"
SAVED_SCHEMA = "edgepress.saved/1"  # what another runtime loads: GGUF, the BitNet form
CHECKPOINT_SCHEMA = "edgepress.checkpoint/1"
PACKAGE_SCHEMA = "edgepress.package/1"  # bundles as ONNX Runtime's model package


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


Kind = Literal["decoder", "encoder", "encoder_decoder"]


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
