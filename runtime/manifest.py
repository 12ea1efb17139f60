"""The parts of a bundle's ``manifest.json`` that the runtime acts on, checked before anything is loaded.

Unknown keys are left alone, so that a newer exporter can say more; known keys must have their exact type and
a sane size, because their numbers decide how much memory is reserved and which files are opened.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import BundleError

BUNDLE_SCHEMA = "edgepress.bundle/1"
CHECKPOINT_SCHEMA = "edgepress.checkpoint/1"

PACKED = "uint8"  # a cache of 4-bit codes
_ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, PACKED: 1}
_LARGEST = 2**31 - 1
TokenId = Annotated[int, Field(ge=0, le=_LARGEST)]
Size = Annotated[int, Field(ge=1, le=_LARGEST)]
Vocabulary = Annotated[int, Field(ge=1, le=1 << 24)]
Width = Annotated[int, Field(ge=1, le=1 << 20)]


def _plain_name(name: str) -> str:
    parts = name.split("/")
    odd = "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts)
    if odd or len(name) > 1024 or max(map(len, parts)) > 200:
        raise ValueError(f"{name[:60]!r} is not a plain file name within the directory")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class FileEntry(_Section):
    """Hash and size of one file."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class HashedTree(_Section):
    """Any manifest that lists the files beside it: a bundle's or a compressed checkpoint's."""

    schema_: str = Field(alias="schema")
    files: dict[FileName, FileEntry]

    def hashes(self) -> dict[str, dict[str, Any]]:
        """``{name: {"sha256", "bytes"}}``, as :func:`edgepress.storage.check_tree` reads it."""
        return {name: entry.model_dump() for name, entry in self.files.items()}


class Graph(_Section):
    """The ONNX file."""

    file: FileName = "model.onnx"

    @model_validator(mode="after")
    def _is_onnx(self) -> Graph:
        if not self.file.endswith(".onnx") or "/" in self.file:
            raise ValueError(f"{self.file!r} is not an ONNX file of the bundle's own directory")
        return self


class KVLayer(_Section):
    """Key/value cache shape of one layer; layers may differ."""

    kv_heads: Width
    head_dim: Width

    def width(self, dtype: str) -> int:
        """Stored numbers of one head and token in a cache of ``dtype``: two 4-bit codes share a byte."""
        return self.head_dim // 2 if dtype == PACKED else self.head_dim


class DecoderSection(_Section):
    """What is needed to drive a decoder graph."""

    layers: list[KVLayer] = Field(min_length=1, max_length=4096)
    kv_dtype: Literal["float32", "float16", "int8", "uint8"] = "float32"
    context_length: Size
    vocab_size: Vocabulary
    bos_token_id: TokenId | None = None
    eos_token_ids: list[TokenId] = Field(default_factory=list, max_length=1024)
    pad_token_id: TokenId | None = None

    @model_validator(mode="after")
    def _codes_fill_bytes(self) -> DecoderSection:
        if self.kv_dtype == PACKED and any(layer.head_dim % 2 for layer in self.layers):
            raise ValueError(f"a {PACKED} cache holds two codes a byte, and a head is odd channels wide")
        return self

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token takes in the cache, keys and values of all layers."""
        numbers = sum(2 * layer.kv_heads * layer.width(self.kv_dtype) for layer in self.layers)
        return numbers * _ITEM_BYTES[self.kv_dtype]


class EncoderSection(_Section):
    """What is needed to drive an encoder graph."""

    pooling: Literal["mean", "cls"] | None
    normalize: bool = False
    max_length: Size
    hidden_size: Width
    inputs: list[Literal["input_ids", "attention_mask", "token_type_ids"]] = Field(min_length=1)


class BundleManifest(HashedTree):
    """The whole of what the runtime reads."""

    kind: Literal["decoder", "encoder"]
    name: str = ""
    described: str = ""
    scheme: str = ""
    graph: Graph = Graph()
    decoder: DecoderSection | None = None
    encoder: EncoderSection | None = None

    @model_validator(mode="after")
    def _has_its_section(self) -> BundleManifest:
        if getattr(self, self.kind) is None:
            raise ValueError(f"a bundle of kind {self.kind!r} needs the section {self.kind!r}")
        if self.graph.file not in self.files:
            raise ValueError(f"{self.graph.file!r} is not among the files")
        return self


Manifest = TypeVar("Manifest", bound=HashedTree)


def parse(model: type[Manifest], raw: bytes, *, schema: str, where: str) -> Manifest:
    """Validate the bytes of a manifest called ``where`` against ``model`` and the ``schema`` it must name.

    Raises:
        BundleError: not JSON, another schema, or a value of the wrong type or size; the key is named.
    """
    try:
        found = model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"{where} is not a usable manifest", why=f"{key}: {first['msg']}") from None
    if found.schema_ != schema:
        raise BundleError(
            f"{where} has schema {found.schema_!r}, this version reads {schema!r}",
            fix="export again with this version, or update edgepress",
        )
    return found
