"""Weights as GGUF keeps them: its own types as they are, ternary ones as ``TQ2_0`` or ``TQ1_0``, groups of
4, 5 and 8 bits as ``Q4_0``, ``Q5_0`` and ``Q8_0``, which are of 32 and repeat the scale of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.model.checkpoint.packed_codes import pack_blocks
from ...compress.model.gguf.entry import Part
from ...compress.model.gguf.types import BLOCK, WAY_OUT, type_of
from ...compress.numbers.qtensor import QTensor
from ...errors import ShapeError
from ._ternary import block_scales, codes_and_scales, is_ternary, tq1_0, tq2_0


def packed(tensor: QTensor, part: Part, ternary: str) -> tuple[NDArray[np.uint8], Any]:
    """Rows of bytes, and their type."""
    from gguf import GGMLQuantizationType as Kind

    if tensor.scheme.of_gguf:
        return np.ascontiguousarray(part.of(pack_blocks(tensor).numpy())), Kind[tensor.scheme.name]
    codes, scales = (part.of(array) for array in codes_and_scales(tensor))
    if is_ternary(tensor):
        pack = {"TQ1_0": tq1_0, "TQ2_0": tq2_0}[ternary]
        return pack(codes, block_scales(scales, codes.shape[1], part.stored)), Kind[ternary]
    return _groups(tensor, codes, scales, part.stored)


def _groups(
    tensor: QTensor, codes: NDArray[np.int8], scales: NDArray[np.float32], name: str
) -> tuple[NDArray[np.uint8], Any]:
    from gguf import GGMLQuantizationType as Kind

    kind = type_of(tensor.scheme, codes.shape[1])
    if kind not in ("Q4_0", "Q5_0", "Q8_0"):
        raise ShapeError(
            f"{name.removesuffix('.weight')} is {tensor.scheme.name}, which GGUF has no type for here",
            fix=WAY_OUT,
        )
    repeated = np.repeat(scales, codes.shape[1] // scales.shape[1] // BLOCK, axis=1)
    ends = repeated.astype(np.float16)[..., None].view(np.uint8)
    if kind == "Q8_0":
        grouped = codes.reshape(*repeated.shape, BLOCK).view(np.uint8)
        return np.concatenate([ends, grouped], -1).reshape(len(codes), -1), Kind.Q8_0
    digits = (codes.reshape(*repeated.shape, 2, BLOCK // 2) + (1 << tensor.scheme.bits - 1)).astype(np.uint8)
    low = digits & 15
    parts = [ends, low[..., 0, :] | low[..., 1, :] << 4]
    if kind == "Q5_0":  # the fifth bits of the 32 before the others
        fifth = digits.reshape(*repeated.shape, BLOCK) >> 4
        parts.insert(1, np.packbits(fifth, axis=-1, bitorder="little"))
    return np.concatenate(parts, -1).reshape(len(codes), -1), Kind[kind]
