"""Weights as GGUF keeps them: its own types as they are, ternary ones as ``TQ2_0`` or ``TQ1_0``, 4-bit groups
as ``Q4_0`` and 8-bit ones as ``Q8_0``, whose groups are of 32 and repeat the scale of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.model.checkpoint.gguf_blocks import pack_blocks
from ...compress.model.gguf.entry import Part
from ...compress.numbers.qtensor import QTensor
from ...errors import ShapeError
from ._ternary import block_scales, codes_and_scales, is_ternary, tq1_0, tq2_0

_BLOCK = 32  # weights that share a scale in Q4_0 and Q8_0


def packed(tensor: QTensor, part: Part, ternary: str) -> tuple[NDArray[np.uint8], Any]:
    """Rows of bytes, and their type.

    Raises:
        ShapeError: codes that GGUF has no type for.
    """
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

    scheme = tensor.scheme
    size = codes.shape[1] // scales.shape[1]
    if scheme.format != "int" or not scheme.symmetric or scheme.bits not in (4, 8) or size % _BLOCK:
        raise ShapeError(
            f"{name.removesuffix('.weight')} is {scheme.name}, which GGUF has no type for here",
            fix="use 4 or 8 bits in groups of a multiple of 32, ternary weights with `scales: matrix`, or "
            "Q2_K to Q6_K or IQ4_NL",
        )
    repeated = np.repeat(scales, size // _BLOCK, axis=1)
    ends = repeated.astype(np.float16)[..., None].view(np.uint8)
    if scheme.bits == 8:
        grouped = codes.reshape(*repeated.shape, _BLOCK).view(np.uint8)
        return np.concatenate([ends, grouped], -1).reshape(len(codes), -1), Kind.Q8_0
    digits = (codes.reshape(*repeated.shape, 2, _BLOCK // 2) + 8).astype(np.uint8)
    bytes_ = digits[..., 0, :] | digits[..., 1, :] << 4
    return np.concatenate([ends, bytes_], -1).reshape(len(codes), -1), Kind.Q4_0
