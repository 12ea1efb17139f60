"""Ternary codes as other runtimes pack them.

- ``TQ2_0`` of GGUF: 2 bits a weight, blocks of 256 with a float16 scale; 2.0625 bits in all.
- ``TQ1_0`` of GGUF: five weights in a byte as a number to the base 3; 1.6875 bits in all.
- transformers' BitNet form: four rows in a byte, one scale for the matrix.

A byte of ``TQ1_0`` holds its number as a fraction of 3⁵, rounded up to 256ths, so that a digit is found by a
multiplication by 3 and the carry out of eight bits.
"""

import numpy as np
from numpy.typing import NDArray

from ...compress.numbers.qtensor import QTensor
from ...errors import ShapeError

BLOCK = 256
_TRITS = 5
# How the 256 weights of a block lie in its 52 bytes: runs of so many bytes, each with so many trits.
_RUNS = ((32, 5), (16, 5), (4, 4))
Codes = NDArray[np.int8]
Scales = NDArray[np.float32]


def is_ternary(tensor: QTensor) -> bool:
    """Whether all codes are −1, 0 or 1, at two bits and without zero points."""
    scheme = tensor.scheme
    return scheme.format == "int" and scheme.bits == 2 and scheme.symmetric and int(tensor.codes.min()) >= -1


def codes_and_scales(tensor: QTensor) -> tuple[Codes, Scales]:
    """``[rows, columns]`` int8 and ``[rows, groups]`` float32."""
    return tensor.codes.numpy(), np.asarray(tensor.scale.numpy(), np.float32)


def one_scale(tensor: QTensor, name: str) -> float:
    """The scale that all groups of the matrix ``name`` have."""
    scales = tensor.scale.unique()  # type: ignore[no-untyped-call]
    if len(scales) > 1:
        raise ShapeError(
            f"{name} has {len(scales)} scales, the BitNet form has one for a matrix",
            fix="train with `scales: matrix`",
        )
    return float(scales[0])


def block_scales(scale: Scales, columns: int, name: str) -> NDArray[np.float16]:
    """``[rows, columns / 256]`` from ``[rows, groups]``: the one scale that all groups of a block have."""
    if columns % BLOCK:
        raise ShapeError(
            f"{name} has {columns} input channels, GGUF's ternary blocks are of {BLOCK}",
            fix="export to onnx, which takes other groups",
        )
    wide = np.repeat(scale, columns // scale.shape[1], axis=1).reshape(len(scale), -1, BLOCK)
    if np.any(wide != wide[:, :, :1]):
        raise ShapeError(
            f"{name} has several scales in {BLOCK} channels, GGUF's ternary blocks have one",
            fix="train with `scales: matrix` or `group_size: 256`",
        )
    return wide[:, :, 0].astype(np.float16)


def tq2_0(codes: Codes, scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """``[rows, blocks · 66]`` from codes ``[rows, blocks · 256]``: each half a block is 32 bytes of four."""
    digits = (codes + 1).astype(np.uint8).reshape(*scales.shape, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
    packed = np.bitwise_or.reduce(digits << shifts, axis=-2).reshape(*scales.shape, -1)
    return _with_scales(packed, scales)


def tq1_0(codes: Codes, scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """``[rows, blocks · 54]`` from codes ``[rows, blocks · 256]``."""
    digits = (codes + 1).astype(np.uint16).reshape(*scales.shape, BLOCK)
    parts, start = [], 0
    for size, trits in _RUNS:
        run = digits[..., start : start + size * trits].reshape(*scales.shape, trits, size)
        weights = 3 ** np.arange(_TRITS - 1, _TRITS - 1 - trits, -1, dtype=np.uint16)
        parts.append((run * weights.reshape(trits, 1)).sum(-2))
        start += size * trits
    numbers = np.concatenate(parts, -1)
    packed = ((numbers.astype(np.uint32) * 256 + 3**_TRITS - 1) // 3**_TRITS).astype(np.uint8)
    return _with_scales(packed, scales)


def _with_scales(packed: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    ends = scales[..., None].view(np.uint8)
    return np.concatenate([packed, ends], -1).reshape(len(scales), -1)


def four_rows(codes: Codes) -> NDArray[np.uint8]:
    """``[rows / 4, columns]``: byte ``r`` holds rows ``r``, ``r + rows/4``, … in its pairs of bits."""
    rows = len(codes)
    if rows % 4:
        raise ShapeError(
            f"{rows} output channels are no multiple of four, as the BitNet form packs them",
            fix="export to onnx",
        )
    digits = (codes + 1).astype(np.uint8).reshape(4, rows // 4, -1)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1, 1)
    return np.asarray(np.bitwise_or.reduce(digits << shifts, axis=0))
