"""The quantization grid of a weight: which scales and zero points, and rounding to it.

``minmax`` spans the largest weight of each group (symmetric: absmax over half the code range,
compressed-tensors' rule). ``mse`` shrinks that span over a ladder of factors and keeps, per group, the one
with the smallest squared rounding error, weighted by the importance of each input channel when it is known:
clipping a rare outlier buys finer steps for all the rest. Symmetric codes reach one step further down than
up, so ``mse`` makes the scale of a group negative where its largest weight is positive: with the fewer bits,
the more that one step is worth. ``percentile`` spans that fraction of each group's
weights (99 %, or ``percentile-99.5``) and clips the others. Scales are rounded to the precision they are
stored in before any code is computed.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...terminal.progress import Tick, unseen
from .block_types import BLOCK_TYPES, SEARCHED
from .input_rotation import rotated
from .qtensor import DOUBLED, QTensor, block_scales, code_type, nearest, power_of_two, row_tiles, unit_of
from .scheme import Scheme
from .super_blocks import quantize_blocks
from .trellis import SEARCHED as SEARCHED_WORDS
from .trellis import UNITS, nearest_symbols

Search = Annotated[
    str,
    Field(
        pattern=r"^(minmax|mse|percentile(-(100|\d\d?(\.\d+)?))?)$",
        description="how scales are found: minmax, mse, or percentile (percentile-99.5)",
    ),
]
PERCENTILE = 99.0

# Factors on the absmax/minmax span tried by "mse": near 1 for 8 bits, down to a third for 2 bits.
# Scales of MXFP4 are powers of two: there is little to choose from.
_FACTORS: dict[int | str, tuple[float, ...]] = {
    8: (1.07, 1.0, 0.97, 0.94, 0.9),
    6: tuple(1.07 - 0.03 * i for i in range(9)),
    5: tuple(1.07 - 0.03 * i for i in range(13)),
    4: tuple(1.07 - 0.03 * i for i in range(17)),
    "mxfp4": (0.5, 2.0),
}
_FACTORS_LOW = tuple(1.1 - 0.04 * i for i in range(20))
# Bits up to which one more step on one side is worth a negative scale; kernels of int8 want positive ones.
_LARGEST_SIGNED = 4
_CHUNK_WEIGHTS = 1 << 18  # weights searched at once: few for the caches, many for what a call costs
_FP16_MIN, _FP16_MAX = 2.0**-14, 65504.0


def storable(scale: Tensor, scheme: Scheme | None = None, largest: float | None = None) -> Tensor:
    """``scale [..., out, groups]`` as it will be stored; float32. Each matrix is rounded to float16 where all
    of it is in float16's normal range; of FP8 to bfloat16, which all that read them hold; of MXFP4 to a power
    of two; of NVFP4 to E4M3 in a unit that holds the ``largest`` of the matrix.
    """
    if scheme is not None and scheme.format == "fp8":
        return scale.to(torch.bfloat16).to(torch.float32)
    if scheme is not None and scheme.format == "mxfp4":
        return power_of_two(scale * DOUBLED) / 2
    if scheme is not None and scheme.format == "nvfp4":
        return block_scales(2 * scale, unit_of(2 * (float(scale.max()) if largest is None else largest))) / 2
    size = scale.abs()
    matrices = size.flatten(-2) if size.ndim > 2 else size.flatten()
    fits = (matrices.amin(-1) >= _FP16_MIN) & (matrices.amax(-1) <= _FP16_MAX)
    rounded = scale.to(torch.float16).to(torch.float32)
    if bool(fits.all()):
        return rounded
    return torch.where(fits[..., None, None] if size.ndim > 2 else fits, rounded, scale)


def round_to_grid(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, room: Tensor | None = None
) -> Tensor:
    """Nearest codes (float, integral) of ``weight``, elementwise with broadcastable ``scale`` and
    ``zero_point``; in ``room`` where there is one.
    """
    codes = torch.div(weight, scale, out=room)
    if scheme.of_gguf:
        return BLOCK_TYPES[scheme.format].nearest(codes)
    if scheme.format != "int":
        return nearest(codes, scheme.format)
    codes.round_()
    if zero_point is not None:
        codes += zero_point
    return codes.clamp_(*scheme.code_range)


def _span(low: Tensor, high: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Lower and upper end ``[out, groups]`` of the grids of groups whose weights reach from ``low`` to
    ``high``, always spanning zero.
    """
    if scheme.symmetric:
        absmax = torch.maximum(-low, high)
        return -absmax, absmax
    return low.clamp(max=0), high.clamp(min=0)


def _grid_of(
    low: Tensor, high: Tensor, scheme: Scheme, largest: float | None
) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point ``[..., out, groups]`` of spans ``[low, high]``; of an all-zero group 1."""
    lowest, highest = scheme.code_range
    scale = (high - low) / (highest - lowest)
    size, tiny = scale.abs(), torch.finfo(torch.float32).tiny
    if not bool(size.amin() > tiny):
        scale = torch.where(size > tiny, scale, torch.ones_like(scale))
    scale = storable(scale, scheme, largest)
    if scheme.symmetric:
        return scale, None
    zero_point = (lowest - low / scale).round_().clamp_(lowest, highest)
    return scale, zero_point


def _rounding_error(
    grouped: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    scheme: Scheme,
    importance: Tensor | None,
    room: Tensor,
    error: Tensor,
) -> None:
    """Make ``error [out, groups]`` the weighted squared one of rounding ``grouped [out, groups, size]``;
    ``room`` is as large, to work in.
    """
    zero = None if zero_point is None else zero_point.unsqueeze(-1)
    codes = round_to_grid(grouped, scale.unsqueeze(-1), zero, scheme, room)
    if zero is not None:
        codes -= zero
    left = torch.addcmul(grouped, codes, scale.unsqueeze(-1), value=-1, out=room)
    if importance is not None and importance.ndim == 3:
        error[:] = ((left.transpose(0, 1) @ importance).transpose(0, 1) * left).sum(-1)
    else:
        square = left.square_()
        torch.sum(square if importance is None else square.mul_(importance), -1, out=error)


def _search_mse(
    grouped: Tensor, scheme: Scheme, importance: Tensor | None, largest: float | None
) -> tuple[Tensor, Tensor | None]:
    ends = grouped.amin(-1), grouped.amax(-1)
    low, high = _span(*ends, scheme)
    steps = torch.tensor(_factors(scheme), device=low.device).view(-1, 1, 1)
    one = torch.ones_like(low)
    tried = torch.cat([one.unsqueeze(0), *(steps * side for side in _sides(*ends, scheme, one))])
    scale, zero_point = _grid_of(low * tried, high * tried, scheme, largest)
    errors, room = low.new_empty(*low.shape, len(tried)), torch.empty_like(grouped)
    for index, steps in enumerate(scale):
        zero = None if zero_point is None else zero_point[index]
        _rounding_error(grouped, steps, zero, scheme, importance, room, errors[..., index])
    best = errors.min(-1).indices.unsqueeze(0)  # the first of equal ones
    return scale.gather(0, best)[0], None if zero_point is None else zero_point.gather(0, best)[0]


def _factors(scheme: Scheme) -> tuple[float, ...]:
    return _FACTORS.get(scheme.format) or _FACTORS.get(scheme.bits) or _FACTORS_LOW


def grids_tried(scheme: Scheme, search: Search = "mse") -> int:
    """How many grids each weight is rounded to, the last one included, on which it stays."""
    if scheme.of_gguf:
        return SEARCHED
    if scheme.of_trellis:
        return SEARCHED_WORDS
    if search != "mse":
        return 2
    both_sides = scheme.format == "int" and scheme.symmetric and scheme.bits == 2
    return 2 + len(_factors(scheme)) * (1 + both_sides)


def _sides(low: Tensor, high: Tensor, scheme: Scheme, one: Tensor) -> tuple[Tensor, ...]:
    """The signs ``[out, groups]`` of the scales that are worth a try for weights from ``low`` to ``high``;
    ``one`` is the plus.
    """
    if scheme.format != "int" or not scheme.symmetric or scheme.bits > _LARGEST_SIGNED:
        return (one,)
    side = torch.where(high > -low, -one, one)
    return (side, -side) if scheme.bits == 2 else (side,)


def _percentile_span(grouped: Tensor, scheme: Scheme, percent: float) -> tuple[Tensor, Tensor]:
    """The span ``[out, groups]`` that holds ``percent`` of each group, between two neighbouring weights.

    Asymmetric: what is left out is shared equally by both ends.
    """
    share = percent / 100
    if scheme.symmetric:
        absolute = torch.quantile(grouped.abs(), share, dim=-1)
        return -absolute, absolute
    low = torch.quantile(grouped, (1 - share) / 2, dim=-1).clamp_(max=0)
    return low, torch.quantile(grouped, (1 + share) / 2, dim=-1).clamp_(min=0)


def _fit(
    grouped: Tensor, scheme: Scheme, search: Search, importance: Tensor | None, largest: float | None
) -> tuple[Tensor, Tensor | None]:
    if search == "mse":
        return _search_mse(grouped, scheme, importance, largest)
    if search == "minmax":
        return _grid_of(*_span(grouped.amin(-1), grouped.amax(-1), scheme), scheme, largest)
    _, _, percent = search.partition("-")
    return _grid_of(*_percentile_span(grouped, scheme, float(percent or PERCENTILE)), scheme, largest)


def fit_grid(
    weight: Tensor,
    scheme: Scheme,
    search: Search = "mse",
    importance: Tensor | None = None,
    absmax: float | None = None,
    tick: Tick = unseen,
) -> tuple[Tensor, Tensor | None]:
    """Scale ``[out, groups]`` and zero point (None when symmetric) for ``weight [out, in]``, float32.

    ``importance`` weighs the squared error of each input channel, ``[in]``, or the products of the errors of
    each two of a group, ``[groups, size, size]``; the group size must divide ``in``. ``absmax`` is the
    largest weight of all the matrices that share what NVFP4's scales are counted in; by default of this one.
    ``tick`` receives the weights that are done, times the grids that were tried.
    """
    out_features, in_features = weight.shape
    groups = scheme.groups(in_features)
    grouped = weight.to(torch.float32).reshape(out_features, groups, -1)
    weights = importance if importance is None or importance.ndim == 3 else importance.view(groups, -1)
    rows = max(1, _CHUNK_WEIGHTS // in_features)
    largest = None
    if scheme.format == "nvfp4":
        largest = (largest_weight(weight) if absmax is None else absmax) / scheme.code_range[1]
    parts = []
    for chunk in torch.split(grouped, rows):
        parts.append(_fit(chunk, scheme, search, weights, largest))
        tick(chunk.numel() * grids_tried(scheme, search))
    scale = torch.cat([scale for scale, _ in parts])
    zeros = [zero for _, zero in parts if zero is not None]
    return scale, torch.cat(zeros) if zeros else None


def largest_weight(weight: Tensor) -> float:
    """The largest magnitude in ``weight``, without a copy of it."""
    return max(abs(float(end)) for end in torch.aminmax(weight))


def quantize(
    weight: Tensor,
    scheme: Scheme,
    search: Search = "mse",
    importance: Tensor | None = None,
    mask: Tensor | None = None,
    absmax: float | None = None,
    tick: Tick = unseen,
) -> QTensor:
    """Round-to-nearest of ``weight [out, in]``; weights where ``mask`` (True keeps) is False become exactly
    zero, where the scheme has a zero. ``absmax`` and ``tick`` as in :func:`fit_grid`.
    """
    if scheme.of_trellis:
        turned = rotated(weight.to(torch.float32))
        scale = row_scales(turned, scheme)
        symbols = nearest_symbols(turned, scale, scheme.bits)
        tick(weight.numel() * SEARCHED_WORDS)
        return QTensor(scheme, symbols, scale)
    if scheme.of_gguf:
        return quantize_blocks(weight, scheme, importance, tick)
    scale, zero_point = fit_grid(weight, scheme, search, importance, absmax, tick)
    return encode(weight, scale, zero_point, scheme, mask)


def row_scales(weight: Tensor, scheme: Scheme) -> Tensor:
    """The scales ``[out, 1]`` of ``weight [out, in]`` in the rotated basis for a trellis: the rows become
    Gaussians of the variance that its levels were made for. 0 of a row of zeros.
    """
    size = torch.linalg.vector_norm(weight, dim=1, keepdim=True) * weight.shape[1] ** -0.5
    return storable(UNITS[scheme.bits] * size)


def encode(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, mask: Tensor | None = None
) -> QTensor:
    """``weight [out, in]`` on the grid ``scale``, ``zero_point [out, groups]``; 0 where ``mask`` is False."""
    codes = torch.empty(weight.shape, dtype=code_type(scheme.format), device=weight.device)
    for rows in row_tiles(codes):
        steps = scale[rows].unsqueeze(-1)
        zero = None if zero_point is None else zero_point[rows].unsqueeze(-1)
        grouped = weight[rows].to(torch.float32).reshape(*steps.shape[:2], -1)
        found = round_to_grid(grouped, steps, zero, scheme)
        if mask is not None:
            empty = torch.zeros_like(steps) if zero is None else zero
            found = torch.where(mask[rows].view(found.shape), found, empty)
        codes[rows] = found.flatten(1).to(codes.dtype)
    return QTensor(scheme, codes, scale, None if zero_point is None else zero_point.to(torch.int8))
