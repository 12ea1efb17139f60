"""HQQ's checkpoints (Badri and Shaji, Half-Quadratic Quantization, 2023), as transformers and hqq's
``save_to_safetensors`` write them, which says nothing of it in a config.

A matrix of ``shape`` is laid out as rows of ``group_size`` weights (``axis`` 1), or as columns of them (0).
``W_q`` holds the codes of those rows: the first part of the rows in the highest bits, the next part below, as
``packing`` says: ``8bit_u8``, ``4bit_u8``, ``2bit_u8``, ``1bit_u8``, or ten of 3 bits in an int32
(``3bit_32``). A weight is ``(code − zero) · scale``; zeros are floats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ._parts import FLOATS, Parts, modules_with

# By packing: bits of a code, codes in a number, and its type.
_PACKINGS = {
    "8bit_u8": (8, 1, "U8"),
    "4bit_u8": (4, 2, "U8"),
    "2bit_u8": (2, 4, "U8"),
    "1bit_u8": (1, 8, "U8"),
    "3bit_32": (3, 10, "I32"),
}
_SCALARS = ("I32", "I64", "U8")
_NAMES = "U8"  # of letters
# What else belongs to a linear, and says nothing that is not known.
_OTHERS = (
    *("nbits", "unpack_view_dtype", "compute_dtype", "offload_meta", "encoded_state_dict"),
    *("stores_quant_config", "channel_wise", "optimize", "round_zero"),
)


class Hqq:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """By its name alone: groups are said by layer."""
        return "HQQ"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with a ``W_q``."""
        return {module: _weight(Parts(module, tensors), read) for module in modules_with("W_q", tensors)}


@dataclass(frozen=True)
class _Stored:
    """A linear whose parts fit."""

    module: str
    shape: tuple[int, int]
    rows: int
    bits: int
    per_number: int

    def dequantized(self, read: Read) -> Tensor:
        """``[out, in]`` float32."""
        packed = read(f"{self.module}.W_q")
        scale, zero = (read(f"{self.module}.{part}").to(torch.float32) for part in ("scale", "zero"))
        weight = torch.empty(self.rows, packed.shape[1])
        for index in range(self.per_number):
            rows = slice(index * len(packed), min((index + 1) * len(packed), self.rows))
            shift = self.bits * (self.per_number - 1 - index)
            codes = packed[: max(0, rows.stop - rows.start)] >> shift & ((1 << self.bits) - 1)
            own = slice(None) if len(scale) == 1 else rows
            torch.mul(codes.to(torch.float32) - zero[own], scale[own], out=weight[rows])
        return weight.view(self.shape)


def _weight(parts: Parts, read: Read) -> CodedWeight:
    parts.take("shape", ("I64", "I32"), 1)
    sizes = [int(size) for size in read(parts.names[-1])[:3]]
    axis, size = (_number(parts, part, read) for part in ("axis", "group_size"))
    letters = parts.take("packing", (_NAMES,), 1)
    packing = bytes(read(parts.names[-1]).tolist()).decode("latin-1") if letters[0] < 32 else ""
    if packing not in _PACKINGS or any(_number(parts, part, read) for part in ("quant_scale", "quant_zero")):
        raise parts.refuse(f"of its packings {', '.join(_PACKINGS)} are read, with scales in floats")
    if "view_as_float" in parts and _number(parts, "view_as_float", read):
        raise parts.refuse("its codes are viewed as floats: quantize it with view_as_float=False")
    bits, per_number, kind = _PACKINGS[packing]
    stored, scale = parts.take("W_q", (kind,)), parts.take("scale", FLOATS)
    if len(sizes) != 2 or min(*sizes, size) < 1 or axis not in (0, 1) or prod(sizes) % size:
        raise parts.refuse(f"its shape {sizes} has no groups of {size} along the axis {axis}")
    groups = prod(sizes) // size
    rows, columns = (groups, size) if axis else (size, groups)
    fits = stored == (-(-rows // per_number), columns) and scale == ((groups, 1) if axis else (1, groups))
    if not fits or parts.take("zero", FLOATS) != scale:
        raise parts.refuse(f"{groups} groups of {size} codes of {bits} bits were expected")
    for part in _OTHERS:
        if part in parts:
            parts.take(part, (*_SCALARS, "I8", "BOOL", *FLOATS), None)
    found = _Stored(parts.module, (sizes[0], sizes[1]), rows, bits, per_number)
    return CodedWeight(found.shape, tuple(parts.names), bits, found.dequantized)


def _number(parts: Parts, part: str, read: Read) -> int:
    shape = parts.take(part, _SCALARS, None)
    if prod(shape) != 1:
        raise parts.refuse(f"{part} is one number")
    return int(read(parts.names[-1]))


FORM: StoredForm = Hqq()
