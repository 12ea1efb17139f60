"""compressed-tensors' forms that are no scheme of edgepress: integers of 1 to 8 bits in groups of any size
or out of order (``weight_g_idx``), FP8 and integers in blocks, MXFP8, floats with other activations, and
matrices of which only what is not 0 is stored (``sparse-bitmask``, ``sparse-24-bitmask``, and ``marlin-24``
in :mod:`._marlin`). Where every linear has a scheme (:mod:`..quantization_config`), this reads nothing.

``weight_packed`` int32 with ``weight_shape``: codes plus 2^(bits−1), lowest first, as a dense stream of bits,
or by older versions so many whole codes a word; ``weight`` int8 or E4M3; ``weight_packed`` uint8: two E2M1 a
byte. ``weight_scale`` of all, of rows, groups or blocks, where it is uint8 as an exponent;
``weight_global_scale`` is what it is divided by; ``weight_zero_point`` as the codes are stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import row_tiles
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ..logical_tensors import group_of, schemes_of
from ..packed_codes import unpack, unpack_e2m1, unpack_e8m0
from ._marlin import SCALES as MARLIN
from ._marlin import SPARSE, marlin_weight, sparse_codes, take_sparse
from ._parts import FLOATS, WORD, Block, Parts, block_of, modules_with, whole

_SCALES = (*FLOATS, "F8_E4M3", "F8_E8M0", "U8")
_INTEGERS, _E4M3, _E2M1 = "int", "E4M3", "E2M1"


class CompressedTensors:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the name of its format."""
        sparse = settings.get("sparsity_config")
        sparse_format = sparse.get("format") if isinstance(sparse, dict) else None
        format = settings.get("format")
        named = sparse_format if format in (None, "dense") and sparse_format else format
        return f"compressed-tensors, {named!s:.40}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight] | None:
        """Every linear with a scale or a mask; None where all have schemes, and where none has either."""
        scaled = list(modules_with("weight_scale", tensors))
        masked = [name for part in SPARSE for name in modules_with(part, tensors)]
        modules = list(dict.fromkeys([*scaled, *(name.removesuffix(".weight") for name in masked)]))
        found = {}
        for module in modules_with(MARLIN, tensors):
            found[module] = marlin_weight(Parts(module, tensors), _weights_of(group_of(settings, module)))
        if not masked and not found and _known(settings, scaled, tensors, read):
            return None
        for module in modules:
            parts = Parts(module, tensors)
            group = group_of(settings, module) if "weight_scale" in parts else {}
            found[module] = _weight(parts, group, settings, read)
        return found


def _known(
    settings: Mapping[str, Any], modules: list[str], tensors: Mapping[str, TensorEntry], read: Read
) -> bool:
    """Whether edgepress has a scheme for each of ``modules``, and reads it as it is stored."""
    if any(f"{module}.weight_g_idx" in tensors for module in modules):
        return False
    try:
        schemes = schemes_of({"quantization_config": settings}, modules) if modules else {}
    except CheckpointError:
        # Of neither type it is damaged, and what follows says so.
        kinds = [group_of(settings, module).get("weights", {}).get("type") for module in modules]
        return all(kind not in ("int", "float") for kind in kinds)
    return not any(
        scheme.format == "int" and _padded(module, scheme.bits, tensors, read)
        for module, scheme in schemes.items()
    )


def _padded(module: str, bits: int, tensors: Mapping[str, TensorEntry], read: Read) -> bool:
    """Whether words hold whole codes where a stream of bits would cross them."""
    packed, shape = tensors.get(f"{module}.weight_packed"), tensors.get(f"{module}.weight_shape")
    if WORD % bits == 0 or packed is None or shape is None or shape.shape != (2,) or len(packed.shape) != 2:
        return False
    columns = int(read(f"{module}.weight_shape")[1])
    return packed.shape[1] != -(-columns * bits // WORD) and packed.shape[1] == -(-columns // (WORD // bits))


@dataclass(frozen=True)
class _Stored:
    """A linear: in which numbers, and what shares a scale."""

    module: str
    numbers: str
    shape: tuple[int, int]
    bits: int
    block: Block
    names: frozenset[str]

    def dequantized(self, read: Read) -> Tensor:
        """``[out, in]`` float32."""
        codes = self._codes(read)
        if "weight_scale" not in self.names:
            return codes.to(torch.float32)
        rows, columns = self.shape
        scale = self._scale(read)
        row_of, column_of = torch.arange(rows) // self.block[0], torch.arange(columns) // self.block[1]
        if "weight_g_idx" in self.names:
            column_of = read(f"{self.module}.weight_g_idx").long()
            if not 0 <= int(column_of.min()) <= int(column_of.max()) < scale.shape[1]:
                raise CheckpointError(
                    f"{self.module}.weight_g_idx names groups beyond the {scale.shape[1]} that have a scale"
                )
        zeros = self._zero_point(read, scale.shape)
        weight = torch.empty(rows, columns)
        for tile in row_tiles(codes):
            values = codes[tile].to(torch.float32)
            if zeros is not None:
                values -= zeros[row_of[tile]][:, column_of]
            torch.mul(values, scale[row_of[tile]][:, column_of], out=weight[tile])
        return weight

    def _codes(self, read: Read) -> Tensor:
        if "bitmask" in self.names or "weight.bitmask" in self.names:
            return sparse_codes(self.module, self.names, self.shape, read)
        if "weight_packed" not in self.names:
            return read(f"{self.module}.weight")
        packed = read(f"{self.module}.weight_packed")
        if self.numbers == _E2M1:
            return unpack_e2m1(packed).to(torch.float32) / 2
        return _unpacked(packed, self.bits, self.shape[1])

    def _scale(self, read: Read) -> Tensor:
        stored = read(f"{self.module}.weight_scale")
        if stored.dtype == torch.uint8:
            scale = unpack_e8m0(f"{self.module}.weight_scale", stored)
        else:
            scale = stored.to(torch.float32)
        if "weight_global_scale" in self.names:
            scale = scale / read(f"{self.module}.weight_global_scale").to(torch.float32)
        return scale.reshape(_blocks(self.shape, self.block))

    def _zero_point(self, read: Read, shape: torch.Size) -> Tensor | None:
        if "weight_zero_point" not in self.names:
            return None
        stored = read(f"{self.module}.weight_zero_point")
        if stored.dtype == torch.int32:
            stored = _unpacked(stored.T.contiguous(), self.bits, shape[0]).T
        return stored.to(torch.float32).reshape(shape)


def _weight(parts: Parts, group: Mapping[str, Any], settings: Mapping[str, Any], read: Read) -> CodedWeight:
    given = _weights_of(group)
    kind, bits = given.get("type", "int"), whole(given, "num_bits", 16)
    sparse = take_sparse(parts, read)
    shape, numbers = sparse or (0, 0), _INTEGERS if kind == "int" else _E4M3
    if sparse is None:
        shape, numbers = _take_codes(parts, kind, bits, read)
    block = shape
    if "weight_scale" in parts:
        block = _take_scales(parts, given, numbers, shape, bits)
    names = frozenset(name.removeprefix(f"{parts.module}.") for name in parts.names)
    stored = _Stored(parts.module, numbers, shape, bits, block, names)
    return CodedWeight(shape, tuple(parts.names), bits, stored.dequantized)


def _weights_of(group: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = group.get("weights")
    return arguments if isinstance(arguments, dict) else {}


def _take_codes(parts: Parts, kind: object, bits: int, read: Read) -> tuple[tuple[int, int], str]:
    """The matrix that the codes are of, and in which numbers."""
    if kind == "int" and 1 <= bits <= 8 and "weight_packed" in parts:
        rows, words = parts.take("weight_packed", ("I32",))
        parts.take("weight_shape", ("I64", "I32"), 1)
        sizes = [int(size) for size in read(parts.names[-1])]
        wide = (-(-sizes[-1] * bits // WORD), -(-sizes[-1] // (WORD // bits)))
        if len(sizes) != 2 or sizes[0] != rows or sizes[1] < 1 or words not in wide:
            raise parts.refuse(f"weight_shape says {sizes} in codes of {bits} bits")
        return (rows, sizes[1]), _INTEGERS
    if kind == "int" and 1 <= bits <= 8:
        rows, columns = parts.take("weight", ("I8",))
        return (rows, columns), _INTEGERS
    if kind == "float" and bits == 8:
        rows, columns = parts.take("weight", ("F8_E4M3",))
        return (rows, columns), _E4M3
    if kind == "float" and bits == 4:
        rows, half = parts.take("weight_packed", ("U8",))
        return (rows, 2 * half), _E2M1
    raise CheckpointError(
        f"{parts.module} is stored in {bits}-bit numbers of the type {kind!s:.40}, which are not read",
        fix="start from the model as it was before it was quantized",
    )


def _take_scales(
    parts: Parts, given: Mapping[str, Any], numbers: str, shape: tuple[int, int], bits: int
) -> Block:
    """The rows and columns that share a scale."""
    scales, (rows, columns) = parts.take("weight_scale", _SCALES, None), shape
    block = block_of(given, "block_structure") if given.get("strategy") == "block" else None
    if block is None:
        size = given.get("group_size")
        grouped = type(size) is int and size > 0 and given.get("strategy") in ("group", "tensor_group")
        block = (1, min(int(size), columns)) if grouped and size is not None else (1, columns)
        if not grouped and prod(scales) == 1 and given.get("strategy") != "channel":
            block = shape
    wanted = _blocks(shape, block)
    if prod(scales) != prod(wanted) or (len(scales) == 2 and prod(scales) > 1 and scales != wanted):
        raise parts.refuse(f"a scale for each {block[0]} × {block[1]} of {rows} × {columns} was expected")
    if "weight_global_scale" in parts and prod(parts.take("weight_global_scale", FLOATS, None)) != 1:
        raise parts.refuse("weight_global_scale is one number")
    if "weight_g_idx" in parts and parts.take("weight_g_idx", ("I32", "I64"), 1) != (columns,):
        raise parts.refuse(f"weight_g_idx is of {columns} inputs")
    if "weight_zero_point" in parts:
        found = parts.take("weight_zero_point", ("I8", "I32", *FLOATS, "F8_E4M3"), None)
        dense, padded = -(-wanted[0] * bits // WORD), -(-wanted[0] // (WORD // max(1, min(bits, 8))))
        if prod(found) != prod(wanted) and found not in ((dense, wanted[1]), (padded, wanted[1])):
            raise parts.refuse("zero points are of what has a scale")
    return block


def _blocks(shape: tuple[int, int], block: Block) -> tuple[int, int]:
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _unpacked(words: Tensor, bits: int, columns: int) -> Tensor:
    """Signed codes ``[rows, columns]`` of a stream of ``bits``, or of words that hold whole codes."""
    if words.shape[1] == -(-columns * bits // WORD):
        return unpack(words, bits, columns)
    per_word = WORD // bits
    parts = [(words >> (bits * index)) & ((1 << bits) - 1) for index in range(per_word)]
    stored = torch.stack(parts, -1).flatten(1)[:, :columns]
    return (stored - (1 << (bits - 1))).to(torch.int8)


FORM: StoredForm = CompressedTensors()
