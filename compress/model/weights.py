"""``WeightSource``: the weights of a dense or compressed checkpoint by module name, read when they are asked
for.

Every verb and every pass comes to a checkpoint through it, so that this is where one is refused: config,
vocabulary, types and shapes when it is opened, NaN and infinity when a tensor is first read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...files.storage import is_regular, read_json
from ..numbers.qtensor import QTensor, stacked
from ..numbers.scheme import Scheme
from ..numbers.table_rounding import quantize_table
from ..numbers.table_scheme import TableScheme, table_scheme
from .anatomy import Anatomy
from .block_anatomy import Attention, BlockAnatomy
from .checkpoint.block_sizes import check_section
from .checkpoint.logical_tensors import (
    coded_by_others,
    coded_linears,
    is_transposed,
    logical_shapes,
    stored_parts,
)
from .checkpoint.quantization_config import INTEGER, PACKED, TRANSPOSED
from .checkpoint.reader import CheckpointReader
from .checkpoint.stored_tensors import restored, restored_input_scale
from .checkpoint.tensor_check import TORCH_TYPES, check_types, refuse_non_finite
from .checkpoint.vocabulary_check import check_vocabulary
from .config_check import check_settings, check_sizes
from .family import anatomy_of, embedder_of, stored_transposed
from .hearing.feature_extractor import with_log_mel
from .image_processor import at_size
from .kv_scheme import KVScales, KVScheme, kv_scheme_of, restored_scales
from .pooling import embeds_sentences

MANIFEST = "edgepress.json"
DEFAULT_EMBEDDING = "W8A16-g32"
AS_EMBEDDING = "embedding"  # of the head: as the embedding is

# Rows of an embedding or head that are rounded at once.
_TABLE_ROWS = 8192


class WeightSource:
    """A checkpoint as the sweep and the exporters read it.

    Attributes:
        reader: the files; anatomy: where the parts are; manifest: ``edgepress.json`` or empty.
        schemes: the scheme of every quantized linear by module name.
        kv_scheme: of the key/value cache; None in float.
        shapes: logical shape of every tensor under its plain name (``X.weight``).
        embedding_scheme: how exports store the embedding, or None to leave it in float; see
            :meth:`table_scheme` for the head.
        packed_transposed: whether quantized linears are stored ``[in, out]``.
        replaced: dense float tensors by name that stand for the stored ones, to see what they would do.
        unpacked: schemes of the linears that :meth:`in_float` shows.
    """

    def __init__(self, reader: CheckpointReader, manifest: dict[str, Any]) -> None:
        self.reader, self.manifest = reader, manifest
        self.kv_scheme: KVScheme | None = kv_scheme_of(reader.config)
        self.schemes: dict[str, Scheme] = coded_linears(reader)
        check_settings(reader.config)
        check_types(reader.dtypes, reader.shapes, self.schemes)
        self._transposed = stored_transposed(reader.config)
        self.packed_transposed = is_transposed(reader.config)
        cached = self.kv_scheme is not None
        self.shapes = logical_shapes(reader, self.schemes, self._transposed, caches=cached)
        derived = embedder_of if embeds_sentences(reader.path) else anatomy_of
        self.anatomy: Anatomy = derived(reader.config, self.shapes)
        self.schemes |= coded_by_others(reader, self.anatomy)
        if self.anatomy.patches is not None:
            self.anatomy = at_size(self.anatomy, reader.path)
        self.anatomy = with_log_mel(self.anatomy, reader.path)
        check_section(reader.config, self.anatomy)
        check_sizes(reader.config, self.anatomy, self.shapes)
        self.embedding_scheme = self._embedding_scheme()
        self.replaced: dict[str, Tensor] = {}
        self.unpacked: dict[str, Scheme] = {}

    @classmethod
    def open(cls, path: Path) -> WeightSource:
        """Open the checkpoint directory ``path``; checks headers, config and vocabulary, loads no weights."""
        reader = CheckpointReader.open(path)
        manifest_path = reader.path / MANIFEST
        manifest = read_json(manifest_path) if is_regular(manifest_path) else {}
        if not isinstance(manifest, dict):
            raise CheckpointError(f"{manifest_path} is not a JSON object")
        source = cls(reader, manifest)
        check_vocabulary(reader, source.anatomy)
        return source

    @property
    def conv1d(self) -> bool:
        """Whether transformers' linears of this family are ``Conv1D``, which are stored ``[in, out]``, as are
        experts that are parts of one tensor, which are none.
        """
        return bool(self._transposed) and not self.anatomy.has_experts

    def _is_transposed(self, name: str) -> bool:
        return bool(self._transposed) and name.endswith(self._transposed)

    def as_stored(self, name: str, tensor: Tensor) -> Tensor:
        """The value ``tensor`` of the dense tensor ``name`` as a checkpoint of this family keeps it."""
        return tensor.T if self._is_transposed(name) else tensor

    def _embedding_scheme(self) -> Scheme | None:
        if not self.manifest or self.anatomy.patches is not None:
            return None
        name = self.manifest.get("embedding", DEFAULT_EMBEDDING)
        return None if name is None else self._stated_table(str(name))

    def _stated_table(self, name: str) -> Scheme:
        scheme, rows = table_scheme(name), self.anatomy.vocab_size
        if isinstance(scheme, TableScheme) and scheme.rare_from >= rows:
            raise CheckpointError(f"{MANIFEST}: {name} is of more rows than the {rows} of the vocabulary")
        return scheme

    @property
    def head_scheme(self) -> Scheme | None:
        """How exports store a head that is not the embedding, or None to leave it in float."""
        name = self.manifest.get("head", AS_EMBEDDING)
        if name == AS_EMBEDDING:
            return self.embedding_scheme
        return None if name is None else self._stated_table(str(name))

    def table_scheme(self, module: str) -> Scheme | None:
        """How exports store the embedding or head ``module``; None in float."""
        own = module == self.anatomy.head and not self.anatomy.tied
        return self.head_scheme if own else self.embedding_scheme

    def stored(self, name: str) -> Tensor:
        """A dense float tensor in its stored type."""
        if name in self.replaced:
            return self.replaced[name]
        module = name.removesuffix(".weight")
        if module in self.unpacked:
            return self._coded(module, self.unpacked[module]).dequantize()
        tensor = self.reader.read([name])[name]
        if not tensor.is_floating_point():
            raise CheckpointError(f"tensor {name} has integer type {tensor.dtype}, a float was expected")
        return tensor.T.contiguous() if self._is_transposed(name) else tensor

    def _read_float(self, name: str) -> Tensor:
        stored = self.stored(name)
        tensor = stored.to(torch.float32)
        if stored.dtype == torch.float64:
            refuse_non_finite({name: tensor})  # a value may be too large for float32
        return tensor

    def linear(self, name: str) -> QTensor | Tensor:
        """The weight of the linear module ``name``: quantized as stored, or dense ``[out, in]`` float32."""
        scheme = self.schemes.get(name)
        return self._read_float(f"{name}.weight") if scheme is None else self._coded(name, scheme)

    def _coded(self, name: str, scheme: Scheme) -> QTensor:
        if name in self.reader.coded.by_module:
            return self.reader.codes(name, scheme)
        form = PACKED if f"{name}.weight_packed" in self.reader.shapes else INTEGER
        form = TRANSPOSED if self.packed_transposed else form
        return restored(name, scheme, self._one, form)

    def in_float(self, names: Iterable[str]) -> None:
        """Show the quantized linears ``names`` as floats, for who cannot have their codes."""
        for name in names:
            self.unpacked[name] = self.schemes.pop(name)

    def scales(self, name: str) -> Tensor:
        """The scales of the linear module ``name``, which is quantized to integers: ``[out, groups]`` float32
        in any order, read without its codes.
        """
        if name in self.reader.coded.by_module:
            return self.reader.codes(name, self.schemes[name]).scale
        return self._one(f"{name}.weight_scale").to(torch.float32)

    def _one(self, stored: str) -> Tensor:
        return self.reader.read([stored])[stored]

    def input_scale(self, name: str) -> float | None:
        """``QTensor.input_scale`` of the quantized linear ``name``."""
        return restored_input_scale(name, self.schemes[name], self._one)

    def dense(self, name: str) -> Tensor:
        """The weight ``[out, in]`` float32 of a linear, dequantized where it is quantized."""
        weight = self.linear(name)
        return weight.dequantize() if isinstance(weight, QTensor) else weight

    def bias(self, name: str) -> Tensor | None:
        """The bias ``[out]`` float32 of the linear module ``name``, or None."""
        return self._read_float(f"{name}.bias") if f"{name}.bias" in self.shapes else None

    def tensor(self, name: str) -> Tensor:
        """A stored tensor by its full name, float32 (dequantized when it is the weight of a quantized
        linear).
        """
        module = name.removesuffix(".weight")
        return self.dense(module) if module in self.schemes else self._read_float(name)

    def table(self, name: str) -> QTensor | Tensor:
        """The embedding or head ``name`` as exports store it: rounded as :meth:`table_scheme` says, or
        float32.
        """
        scheme, stored = self.table_scheme(name), self.stored(f"{name}.weight")
        if scheme is None or scheme.format != "int" or stored.dtype == torch.float64:
            weight = self._read_float(f"{name}.weight")
            return weight if scheme is None else quantize_table(weight, scheme)
        # Some rows at a time: a table is the largest tensor, and its rows are rounded each by itself.
        return stacked(
            [quantize_table(rows.to(torch.float32), scheme) for rows in torch.split(stored, _TABLE_ROWS)]
        )

    def stored_type(self, name: str) -> torch.dtype:
        """The precision on disk of a logical float tensor; float32 for the weight of a quantized linear."""
        if name.removesuffix(".weight") in {**self.schemes, **self.unpacked}:
            return torch.float32
        return TORCH_TYPES[self.reader.dtypes[name]]

    def kv_scales(self, attention: Attention) -> KVScales | None:
        """The scales of the key/value cache of ``attention``; None for a cache in float."""
        if self.kv_scheme is None:
            return None
        return restored_scales(attention, self.kv_scheme, self._one)

    def block_scales(self, block: BlockAnatomy) -> dict[str, KVScales]:
        """:meth:`kv_scales` of a block by the module of their attention; none where its cache is in float."""
        found = {part.module: self.kv_scales(part) for part in self.anatomy.cached(block)}
        return {module: scales for module, scales in found.items() if scales is not None}

    def quantized(self, block: BlockAnatomy, device: torch.device) -> dict[str, QTensor]:
        """The linears of ``block`` that are stored quantized."""
        found = {
            linear.name: self.linear(linear.name) for linear in block.linears() if linear.name in self.schemes
        }
        return {name: tensor.to(device) for name, tensor in found.items() if isinstance(tensor, QTensor)}

    def stored_bytes(self, name: str) -> int:
        """Bytes on disk of a logical tensor, with the scales and zero points of a quantized one."""
        module = name.removesuffix(".weight")
        if module not in self.schemes and module not in self.unpacked:
            return self.reader.nbytes(name)
        parts = (part for part in stored_parts(module) if part in self.reader.shapes)
        return sum(map(self.reader.nbytes, parts))

    def outer_bytes(self) -> int:
        """Bytes on disk of everything outside the blocks."""
        prefixes = tuple(block.prefix + "." for block in self.anatomy.blocks)
        return sum(self.stored_bytes(name) for name in self.shapes if not name.startswith(prefixes))

    def names(self, prefix: str = "") -> list[str]:
        """Logical tensor names below ``prefix``."""
        return [name for name in self.shapes if name.startswith(prefix)]
