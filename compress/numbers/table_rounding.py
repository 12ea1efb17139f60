"""Rounding an embedding or head for an export: to nearest, but what is on a grid of its scheme stays.

A group on a grid keeps its values. So a table that a pass has rounded by more than its own values
(:mod:`edgepress.compress.passes.embedding`) is exported as that pass left it, and one that was rounded twice
is as it was rounded once. For that the scales of the pass are short (:func:`short_scales`): then each scale
times each code is a number that the table's own type holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .grid import encode, quantize, storable
from .qtensor import QTensor
from .scheme import Scheme

# More leave a scale in bfloat16 no bits, and rounding to nearest so little to gain.
MOST_BITS = 6
_SIGNIFICANT = {torch.bfloat16: 8, torch.float16: 11}  # bits, the leading one counted


def kept_on_grid(scheme: Scheme) -> bool:
    """Whether groups that are on a grid of ``scheme`` keep their values."""
    return scheme.format == "int" and scheme.symmetric and scheme.bits <= MOST_BITS


def quantize_table(weight: Tensor, scheme: Scheme) -> QTensor:
    """``weight [rows, in]`` rounded to nearest; groups that are on a grid of ``scheme`` keep their values."""
    rounded = quantize(weight, scheme)
    if not kept_on_grid(scheme):
        return rounded
    scale = torch.where(*_own_grids(weight.to(torch.float32), scheme, rounded.scale), rounded.scale)
    return encode(weight, scale, None, scheme)


def short_scales(scale: Tensor, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """The nearest to ``scale`` whose products with all codes of ``scheme`` are exact in ``dtype``."""
    if dtype not in _SIGNIFICANT:
        return scale
    steps = 2 ** (_SIGNIFICANT[dtype] - (scheme.bits - 1))
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp((mantissa * steps).round_() / steps, exponent)


def _own_grids(weight: Tensor, scheme: Scheme, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Which groups of ``weight [rows, in]`` are on a grid, and its scale ``[rows, groups]``.

    The largest weight of such a group is a multiple of its scale, up to as many times as there are negative
    codes. Half the scale does as well where the codes are small: the multiples from half of that on are all.
    """
    grouped = weight.view(*scale.shape, -1)
    largest = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)).squeeze(-1)
    most = 2 ** (scheme.bits - 1)
    found, scales = torch.zeros_like(largest, dtype=torch.bool), torch.ones_like(largest)
    for multiple in range(most, most // 2 - 1, -1):
        # There is one code more below zero than above.
        tried = storable(-largest / multiple, scheme)
        tried = torch.where(tried == 0, torch.ones_like(tried), tried)
        codes = encode(weight, tried, None, scheme)
        fits = (codes.dequantize().view_as(grouped) == grouped).all(-1)
        scales = torch.where(fits & ~found, tried, scales)
        found |= fits
    return found, scales
