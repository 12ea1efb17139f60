"""Formats of numbers: integers, FP8 (E4M3), and the two 4-bit floats of server GPUs, MXFP4 and NVFP4.

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

import torch
from torch import Tensor

from .scheme import E2M1_LARGEST, E4M3_LARGEST, Format

E4M3 = torch.float8_e4m3fn
DOUBLED = 2 * E2M1_LARGEST
_E4M3_SMALLEST = 2.0**-9
_SMALLEST_EXPONENT = -126  # E8M0 goes one further, where float32 has lost its digits


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
