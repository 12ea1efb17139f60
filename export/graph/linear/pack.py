"""``QTensor`` → the arrays that ``MatMulNBits`` and ``GatherBlockQuantized`` read.

Codes become unsigned by adding half the range, are cut into blocks, and several share a byte, the first in
the lowest bits. Zero points are packed the same way along the blocks of one output. Scales are float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....compress.numbers.qtensor import QTensor
from .layout import Layout

Bytes = NDArray[np.uint8]


def _packed(values: Bytes, bits: int) -> Bytes:
    """Pack the last axis, whose length fills whole bytes."""
    per_byte = 8 // bits
    packed = values[..., ::per_byte].copy()
    for position in range(1, per_byte):
        packed |= values[..., position::per_byte] << (bits * position)
    return packed


def _padded(values: Bytes, length: int, fill: int) -> Bytes:
    missing = length - values.shape[-1]
    return np.pad(values, [(0, 0), (0, missing)], constant_values=fill) if missing else values


def _unsigned(values: NDArray[np.int8], zero: int) -> Bytes:
    # Modulo 256 the view is the two's complement, so that -128 + 128 is 0 without a wider type.
    return np.ascontiguousarray(values).view(np.uint8) + np.uint8(zero)


def pack_codes(tensor: QTensor, layout: Layout) -> Bytes:
    """``[out, blocks, bytes per block]``; inputs beyond the last one hold the zero code."""
    codes = _padded(_unsigned(tensor.codes.numpy(), layout.zero), layout.blocks * layout.block, layout.zero)
    return _packed(codes, layout.bits).reshape(codes.shape[0], layout.blocks, layout.blob)


def pack_scales(tensor: QTensor, layout: Layout) -> NDArray[Any]:
    """``[out, blocks]`` float32."""
    scale = tensor.scale.numpy().astype(np.float32, copy=False)
    return scale if layout.repeats == 1 else np.repeat(scale, layout.repeats, axis=1)


def pack_zero_points(tensor: QTensor, layout: Layout) -> Bytes:
    """``[out, bytes]`` of an asymmetric tensor."""
    assert tensor.zero_point is not None
    zeros = np.repeat(_unsigned(tensor.zero_point.numpy(), layout.zero), layout.repeats, axis=1)
    return _packed(_padded(zeros, layout.zero_point_bytes * 8 // layout.bits, 0), layout.bits)
