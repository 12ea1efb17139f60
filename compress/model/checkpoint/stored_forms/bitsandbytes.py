"""What bitsandbytes stores: 4 bits (``nf4`` and ``fp4``; Dettmers et al., QLoRA, 2023, arXiv 2305.14314) and
8 (Dettmers et al., LLM.int8(), 2022, arXiv 2208.07339).

Of 4 bits ``weight [codes / 2, 1]`` holds the codes of the whole matrix, row by row, two a byte, the first one
high. A code is an index into ``quant_map [16]``, times the ``absmax`` of its block; these are floats, or in a
second quantization bytes that index ``nested_quant_map [256]``, times the ``nested_absmax`` of their own
block, plus an offset. Shape and sizes of blocks are JSON in the bytes of ``quant_state``. Of 8 bits ``weight
[out, in]`` is int8, and ``SCB [out]`` the value of 127.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from .....files.limits import finite_number
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ._parts import Parts, modules_with

_STATE = "weight.quant_state.bitsandbytes__"
_TYPES = ("nf4", "fp4")
_STATE_BYTES = 4096
_ROWS = Scheme(bits=8, group_size=None)
_AT_ONCE = 1 << 20  # blocks' codes that are looked up at once
_POINTS, _NESTED_POINTS, _LARGEST = 16, 256, 127


class BitsAndBytes:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the type of its numbers."""
        if settings.get("load_in_8bit"):
            return "bitsandbytes, int8"
        nested = ", scales quantized too" if settings.get("bnb_4bit_use_double_quant") else ""
        return f"bitsandbytes, {settings.get('bnb_4bit_quant_type')!s:.8}{nested}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with an ``absmax`` or an ``SCB``."""
        found = {}
        for stored in modules_with("absmax", tensors):
            module = stored.removesuffix(".weight")
            found[module] = _four_bits(Parts(module, tensors), read)
        for module in modules_with("SCB", tensors):
            found[module] = _eight_bits(Parts(module, tensors), read)
        return found


def _eight_bits(parts: Parts, read: Read) -> CodedWeight:
    shape = parts.take("weight", ("I8",))
    rows = parts.take("SCB", ("F32", "F16", "BF16"), 1)
    if rows != shape[:1]:
        raise parts.refuse("a scale for each row was expected")
    names = tuple(parts.names)
    if "weight_format" in parts:  # 0: row by row; others are of matrix units
        parts.take("weight_format", ("U8", "I8", "I64"), None)
        if bool(read(parts.names[-1]).any()):
            raise parts.refuse("its weight_format is not the order of rows")

    def codes(scheme: Scheme, read: Read) -> QTensor:
        scale = read(names[1]).to(torch.float32)[:, None] / _LARGEST
        return QTensor(scheme, read(names[0]), torch.where(scale == 0, 1.0, scale))

    def dequantized(read: Read) -> Tensor:
        return codes(_ROWS, read).dequantize()

    return CodedWeight((shape[0], shape[1]), tuple(parts.names), 8, dequantized, lambda read: _ROWS, codes)


@dataclass(frozen=True)
class _State:
    """What ``quant_state`` says: the matrix, and codes in a block; of the second quantization also its blocks
    and its offset.
    """

    shape: tuple[int, int]
    block: int
    nested_block: int = 0
    offset: float = 0.0


def _four_bits(parts: Parts, read: Read) -> CodedWeight:
    kind = next((kind for kind in _TYPES if f"{_STATE}{kind}" in parts), None)
    if kind is None:
        raise CheckpointError(
            f"{parts.module} has no quant_state of {' or '.join(_TYPES)}",
            fix="save it again with bitsandbytes 0.41 or later",
        )
    nested = "weight.nested_absmax" in parts
    (size,) = parts.take(f"{_STATE}{kind}", ("U8",), 1)
    state = _state(parts, read, nested) if size <= _STATE_BYTES else None
    if state is None:
        raise parts.refuse("its quant_state says no matrix and no blocks")
    count = math.prod(state.shape)
    bytes_of = parts.take("weight", ("U8",), None)
    blocks = parts.take("weight.absmax", ("U8",) if nested else ("F32",), 1)
    fits = math.prod(bytes_of) == -(-count // 2) and blocks == (-(-count // state.block),)
    fits = fits and parts.take("weight.quant_map", ("F32",), 1) == (_POINTS,)
    if nested:
        outer = parts.take("weight.nested_absmax", ("F32",), 1)
        fits = fits and outer == (-(-blocks[0] // state.nested_block),)
        fits = fits and parts.take("weight.nested_quant_map", ("F32",), 1) == (_NESTED_POINTS,)
    if not fits:
        raise parts.refuse(f"{count} codes in blocks of {state.block} were expected")
    module = parts.module
    return CodedWeight(
        state.shape, tuple(parts.names), 4, lambda read: _looked_up(module, state, nested, read)
    )


def _state(parts: Parts, read: Read, nested: bool) -> _State | None:
    """None where it says something else."""
    try:
        found = json.loads(bytes(read(parts.names[-1]).tolist()))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    shape, offset = found.get("shape"), finite_number(found.get("nested_offset", 0.0) if nested else 0.0)
    if not isinstance(shape, list) or offset is None:
        return None
    named = [*shape, found.get("blocksize"), found.get("nested_blocksize") if nested else 1]
    sizes = [size for size in named if type(size) is int and 0 < size < 1 << 40]
    return _State((sizes[0], sizes[1]), sizes[2], sizes[3], offset) if len(sizes) == 4 else None


def _looked_up(module: str, state: _State, nested: bool, read: Read) -> Tensor:
    points, scale = read(f"{module}.weight.quant_map"), read(f"{module}.weight.absmax")
    if nested:
        outer = read(f"{module}.weight.nested_absmax")
        block_of = torch.arange(len(scale)) // state.nested_block
        scale = read(f"{module}.weight.nested_quant_map")[scale.long()] * outer[block_of] + state.offset
    packed = read(f"{module}.weight").flatten()
    count = math.prod(state.shape)
    weight = torch.empty(2 * len(packed))
    step = max(1, _AT_ONCE // state.block) * state.block  # whole blocks
    step += step % 2 * step
    for start in range(0, count, step):
        part = packed[start // 2 : (start + step) // 2]
        codes = torch.stack((part >> 4, part & 15), 1).flatten()
        block_of = torch.arange(start, start + len(codes)).clamp_(max=count - 1) // state.block
        weight[start : start + len(codes)] = points[codes.long()] * scale[block_of]
    return weight[:count].view(state.shape)


FORM: StoredForm = BitsAndBytes()
