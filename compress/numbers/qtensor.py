"""``QTensor``: the one quantized weight. Every algorithm produces it, every format reads it.

``weight ≈ (codes − zero_point) · scale`` with one scale per group of input channels. Codes are unpacked:
packing belongs to a format. Zero is always representable, so that pruned weights survive, but in three types
of GGUF (:mod:`.block_types`), two of which subtract a ``minimum``, and in a trellis (:mod:`.trellis`), whose
codes are symbols that stand for weights by words of 8 rows.

Formats of numbers: integers, FP8 (E4M3), and the two 4-bit floats of server GPUs, MXFP4 and NVFP4.

A float format is a set of points and a rule for the scales of its groups.

- ``fp8``: E4M3, sign, 4 exponent and 3 mantissa bits, no infinity, at most 448 (Micikevicius et al. 2022,
  "FP8 Formats for Deep Learning", arXiv 2209.05433). The scale of an output channel is any float.
- ``mxfp4``: E2M1, the points 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; 32 inputs share a power of two
  (Open Compute Project, "OCP Microscaling Formats (MX) Specification v1.0", 2023; arXiv 2310.10537).
- ``nvfp4``: E2M1 too; 16 inputs share an E4M3 number, and all of them one float of the whole matrix, which
  here is a power of two: it takes no digit of a weight, and every product is exact in bfloat16.

The codes of E2M1 are its points doubled: integers, and the scale that goes with them is half of the block's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import ShapeError
from . import trellis
from .scheme import E2M1_LARGEST, E4M3_LARGEST, Format, Scheme

_TILE_WEIGHTS = 1 << 17  # float32 temporaries of so many stay in the second-level cache
E4M3 = torch.float8_e4m3fn
DOUBLED = 2 * E2M1_LARGEST
_E4M3_SMALLEST = 2.0**-9
_SMALLEST_EXPONENT = -126  # E8M0 goes one further, where float32 has lost its digits


def row_tiles(matrix: Tensor, most: int = _TILE_WEIGHTS) -> Iterator[slice]:
    """Runs of rows of ``matrix [out, in]`` with about ``most`` elements each; on a GPU all rows at once."""
    out_features, in_features = matrix.shape
    step = max(1, most // max(1, in_features)) if matrix.device.type == "cpu" else max(1, out_features)
    for start in range(0, out_features, step):
        yield slice(start, start + step)


@dataclass(frozen=True)
class QTensor:
    """A quantized matrix.

    Attributes:
        scheme: bits, group size and symmetry.
        codes: ``[out, in]`` int8, or E4M3 where that is the format; within ``scheme.code_range``.
        scale: ``[out, groups]`` float32, not zero (in GGUF's types of an all-zero group); negative only of
            symmetric integers of few bits, and of GGUF's types.
        zero_point: ``[out, groups]`` int8 in the code range, or None when symmetric.
        minimum: ``[out, groups]`` float32, subtracted, or None.
        input_scale: of the activations, where it was found in calibration (``scheme.calibrated``).
    """

    scheme: Scheme
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    input_scale: float | None = None
    minimum: Tensor | None = None

    def __post_init__(self) -> None:
        out_features, in_features = self.codes.shape
        expected = (out_features, self.scheme.groups(in_features))
        if tuple(self.scale.shape) != expected:
            raise ShapeError(f"scale has shape {tuple(self.scale.shape)}, codes need {expected}")
        if self.scheme.symmetric != (self.zero_point is None):
            raise ShapeError("a zero point belongs to asymmetric schemes, and to them only")

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self, dtype: torch.dtype = torch.float32, rows: slice = slice(None)) -> Tensor:
        """The ``rows`` of the weight ``[out, in]`` that the codes stand for."""
        if self.scheme.of_trellis:
            return trellis.dequantized(self.codes, self.scale, self.scheme.bits, rows).to(dtype)
        codes, scales = self.codes[rows], self.scale[rows]
        zeros = None if self.zero_point is None else self.zero_point[rows]
        weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for tile in row_tiles(codes):
            scale = scales[tile].to(torch.float32).unsqueeze(-1)
            grouped = codes[tile].view(*scale.shape[:2], -1).to(torch.float32)
            if zeros is not None:
                grouped -= zeros[tile].to(torch.float32).unsqueeze(-1)
            place = weight[tile].view(grouped.shape)
            torch.mul(grouped, scale, out=place)
            if self.minimum is not None:
                place -= self.minimum[rows][tile].unsqueeze(-1)
        return weight

    def to(self, device: torch.device | str) -> QTensor:
        """The same tensor on ``device``."""
        zero_point = None if self.zero_point is None else self.zero_point.to(device)
        minimum = None if self.minimum is None else self.minimum.to(device)
        codes, scale = self.codes.to(device), self.scale.to(device)
        return replace(self, codes=codes, scale=scale, zero_point=zero_point, minimum=minimum)

    def rows(self, order: Tensor) -> QTensor:
        """The rows ``order [rows]`` of the matrix, in that order.

        Raises:
            ShapeError: they take words of a trellis apart.
        """
        if self.scheme.of_trellis:
            trellis.check_order(order, len(self.codes))
        zero_point = None if self.zero_point is None else self.zero_point[order]
        minimum = None if self.minimum is None else self.minimum[order]
        plain = self.codes.view(torch.uint8) if self.codes.dtype == E4M3 else self.codes
        codes = plain[order].view(self.codes.dtype)
        return replace(self, codes=codes, scale=self.scale[order], zero_point=zero_point, minimum=minimum)


def stacked(parts: Sequence[QTensor]) -> QTensor:
    """The matrix of the rows of ``parts``, which share one scheme, one below the other. Of a trellis all but
    the last have whole words.
    """
    zeros = [part.zero_point for part in parts if part.zero_point is not None]
    codes, scale = torch.cat([part.codes for part in parts]), torch.cat([part.scale for part in parts])
    return replace(parts[0], codes=codes, scale=scale, zero_point=torch.cat(zeros) if zeros else None)


def code_type(number_format: Format) -> torch.dtype:
    """The type in which codes are held: int8, or E4M3 itself."""
    return E4M3 if number_format == "fp8" else torch.int8


def nearest(values: Tensor, number_format: Format) -> Tensor:
    """The nearest point of a float format to each of ``values``, in units of codes, ties to the even
    mantissa; what is beyond the last point becomes it. float32.
    """
    if number_format == "fp8":
        return values.clamp(-E4M3_LARGEST, E4M3_LARGEST).to(E4M3).to(torch.float32)
    size = values.abs()
    step = torch.where(size < 4, 1.0, torch.where(size < 8, 2.0, 4.0))
    return (values / step).round_().mul_(step).clamp_(-DOUBLED, DOUBLED)


def power_of_two(absmax: Tensor) -> Tensor:
    """The scale of an MX block whose largest magnitude is ``absmax``: it puts that between 3.5 and 7, so that
    what is beyond 6 rounds to it. The rule of compressed-tensors.
    """
    mantissa, exponent = torch.frexp(absmax)
    exponent = exponent - 3 + (mantissa >= 0.875).to(exponent.dtype)
    return torch.ldexp(torch.ones_like(absmax), exponent.clamp(_SMALLEST_EXPONENT, 127))


def unit_of(largest: float) -> float:
    """The power of two in which NVFP4's block scales count, so that the ``largest`` of them fits E4M3."""
    if not (largest > 0 and math.isfinite(largest)):
        return 1.0
    return float(2.0 ** max(math.ceil(math.log2(largest / E4M3_LARGEST)), _SMALLEST_EXPONENT + 9))


def block_scales(scale: Tensor, unit: float) -> Tensor:
    """``scale`` on the grid of NVFP4: an E4M3 number, never zero, times ``unit``; float32."""
    counted = (scale / unit).clamp(_E4M3_SMALLEST, E4M3_LARGEST)
    return counted.to(E4M3).to(torch.float32) * unit
