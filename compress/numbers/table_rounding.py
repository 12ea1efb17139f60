"""Rounding an embedding or head for an export: to nearest, but what is on a grid of its scheme stays.

A group on a grid keeps its values. So a table that a pass has rounded by more than its own values
(:mod:`edgepress.compress.passes.embedding`) is exported as that pass left it, and one that was rounded twice
is as it was rounded once. For that the scales of the pass are short (:func:`short_scales`): then each scale
times each code is a number that the table's own type holds.
"""

import torch
from torch import Tensor

from ...errors import CheckpointError
from .grid import encode, quantize, storable
from .qtensor import QTensor, stacked
from .scheme import Scheme
from .table_scheme import kept_on_grid, rows_of

_ROWS = 8192  # of rare tokens that are floats at once
# Bits, the leading one counted. Exports store scales in float16 where they can, whatever type a table has.
_SIGNIFICANT = {torch.bfloat16: 8, torch.float16: 11}
_FLOAT32, _STORED = 24, 11


def quantize_table(weight: Tensor, scheme: Scheme) -> QTensor:
    """``weight [rows, in]`` rounded to nearest; groups that are on a grid of ``scheme`` keep their values."""
    rounded = quantize(weight, scheme)
    if not kept_on_grid(scheme):
        return rounded
    scale = torch.where(*_own_grids(weight.to(torch.float32), scheme, rounded.scale), rounded.scale)
    return encode(weight, scale, None, scheme)


def in_parts(table: QTensor) -> list[QTensor]:
    """``table [rows, in]`` as its scheme stores it: one matrix, or that of the frequent rows and that of the
    others, in their own codes.
    """
    (first, frequent), *others = rows_of(table.scheme, len(table.codes))
    if not others:
        return [table]
    found = [QTensor(frequent, table.codes[first], table.scale[first])]
    for rows, scheme in others:
        starts = range(rows.start, rows.stop, _ROWS)
        found.append(
            stacked([_rare(table, slice(start, min(start + _ROWS, rows.stop)), scheme) for start in starts])
        )
    return found


def _rare(table: QTensor, rows: slice, scheme: Scheme) -> QTensor:
    weight = table.dequantize(rows=rows)
    part = quantize_table(weight, scheme)
    if not torch.equal(part.dequantize(), weight):
        raise CheckpointError(
            f"rows of an embedding or head are not on a grid of {scheme.name}, as {table.scheme.name} says",
            fix="round it by the pass embedding, behind all that change its values",
        )
    return part


def short_scales(scale: Tensor, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """The nearest to ``scale`` whose products with all codes of ``scheme`` are exact in ``dtype``, and that
    float16 holds unless it is too small.
    """
    steps = 2 ** min(_STORED, _SIGNIFICANT.get(dtype, _FLOAT32) - (scheme.bits - 1))
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
