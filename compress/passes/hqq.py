"""HQQ: a grid found without data that forgives outliers: few weights may be far off, most should be close.

Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models" (mobiusml.github.io).
The rounding error is measured by ``Σ|e|ᵖ`` with p < 1 and split in two: a sparse part, found by shrinking the
error (the proximal step of the p-norm), and what is left, which the grid then fits by least squares in closed
form: the zero point is a mean, the scale a ratio of two inner products. Errors are counted in steps of the
grid that the search starts from, so that the strength of the shrinkage means the same for every group.

Zero points are stored as integers here. Each is rounded as it is found, and every grid on the way is judged
as it would be stored: a group keeps the one with the least ``Σ|e|ᵖ``, which is never worse than the start.
With ``power: 2`` and a strength of at most 1 nothing is set apart: plain least squares.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import Linear
from ..numbers.grid import encode, fit_grid, grids_tried, round_to_grid, storable
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.algorithm import Fixed
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass

_CHUNK_WEIGHTS = 1 << 17  # weights worked at once: the temporaries stay in the second-level cache
_SMALLEST = 1e-6  # steps; keeps the power of an error of zero finite


def shrink(error: Tensor, power: float, strength: float) -> Tensor:
    """The sparse part of ``error``: ``sign(e) · max(|e| − |e|ᵖ⁻¹ / strength, 0)``, elementwise."""
    size = error.abs()
    return error.sign() * (size - size.clamp(min=_SMALLEST).pow(power - 1) / strength).clamp_(min=0)


def _levels(grouped: Tensor, scale: Tensor, zero: Tensor | None, scheme: Scheme) -> Tensor:
    """Nearest ``code − zero_point``, float, of ``grouped [rows, groups, size]``."""
    if zero is None:
        return round_to_grid(grouped, scale.unsqueeze(-1), None, scheme)
    return round_to_grid(grouped, scale.unsqueeze(-1), zero.unsqueeze(-1), scheme) - zero.unsqueeze(-1)


def _refit(
    levels: Tensor, target: Tensor, scale: Tensor, zero: Tensor | None, scheme: Scheme
) -> tuple[Tensor, Tensor | None]:
    """The zero point, then the scale, that fit ``target`` best with the codes held, where there is such."""
    if zero is not None:
        codes = levels + zero.unsqueeze(-1)
        zero = (codes - target / scale.unsqueeze(-1)).mean(-1).round_().clamp_(*scheme.code_range)
        levels = codes - zero.unsqueeze(-1)
    power = levels.square().sum(-1)
    fitted = (levels * target).sum(-1) / power.clamp(min=1)
    usable = (power > 0) & (fitted * scale.sign() > torch.finfo(torch.float32).tiny)
    return storable(torch.where(usable, fitted, scale)), zero


def half_quadratic(
    grouped: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    scheme: Scheme,
    *,
    power: float,
    strength: float,
    growth: float,
    iterations: int,
) -> tuple[Tensor, Tensor | None]:
    """Improve ``scale``, ``zero [rows, groups]`` for the weights ``grouped [rows, groups, size]``.

    Returns what is stored: scales in their stored precision, integral zero points; by group, the best seen.
    """
    step = scale.unsqueeze(-1)
    best_scale, best_zero = scale, zero
    levels = _levels(grouped, scale, zero, scheme)
    error = (grouped - levels * step) / step
    least = error.abs().pow_(power).sum(-1)
    for _ in range(iterations):
        target = grouped - shrink(error, power, strength) * step
        scale, zero = _refit(levels, target, scale, zero, scheme)
        levels = _levels(grouped, scale, zero, scheme)
        error = (grouped - levels * scale.unsqueeze(-1)) / step
        loss = error.abs().pow_(power).sum(-1)
        better = loss < least
        least = torch.where(better, loss, least)
        best_scale = torch.where(better, scale, best_scale)
        if zero is not None and best_zero is not None:
            best_zero = torch.where(better, zero, best_zero)
        strength *= growth
    return best_scale, best_zero


# β of the first iteration, the factor on it after each, and how many there are.
_STRENGTH, _GROWTH, _ITERATIONS = 1.0, 1.01, 10
_STEPS_IN_ROUNDINGS = 6 * _ITERATIONS  # what they take, in roundings to a grid


class Hqq(BlockPass):
    """Options of ``hqq``."""

    text: ClassVar[str] = "no"
    fixed: ClassVar[Mapping[str, Fixed]] = {
        "samples": Fixed(None, "no text is read"),
        "search": Fixed("mse", "the fit begins at the grid of least squared error and never ends worse"),
        "strength": Fixed(_STRENGTH, "errors above about a step are set apart, whatever the group's scale"),
        "growth": Fixed(_GROWTH, "the authors' value"),
        "iterations": Fixed(_ITERATIONS, "each group keeps the best grid on the way"),
    }
    samples: ClassVar[None] = None  # type: ignore[misc]  # not an option here
    scheme: SchemeOption
    power: float = Field(
        0.7, gt=0, le=2, description="p of the p-norm of the rounding error; 2 is least squares"
    )

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Nothing: it works in tiles."""
        return 0

    @property
    def roundings(self) -> int:
        return grids_tried(self.scheme) + _STEPS_IN_ROUNDINGS

    def apply(self, block: Block) -> None:
        for linear in filter(self.selects, block.anatomy.linears()):
            tensor = self.quantize(block.weight(linear), block.masks.get(linear.name), block.tick_rounded)
            block.quantize(linear, tensor, "hqq")

    def quantize(self, weight: Tensor, mask: Tensor | None = None, tick: Tick = unseen) -> QTensor:
        """``weight [out, in]`` on its half-quadratic grid; exactly zero where ``mask`` is False. ``tick``
        receives the weights that are done, times the roundings that they take.
        """
        scale, zero_point = fit_grid(weight, self.scheme, tick=tick)
        rows = max(1, _CHUNK_WEIGHTS // weight.shape[1])
        for start in range(0, weight.shape[0], rows):
            chunk = slice(start, start + rows)
            scale[chunk], zero = half_quadratic(
                weight[chunk].reshape(-1, *scale.shape[1:], weight.shape[1] // scale.shape[1]),
                scale[chunk].clone(),
                None if zero_point is None else zero_point[chunk].clone(),
                self.scheme,
                power=self.power,
                strength=_STRENGTH,
                growth=_GROWTH,
                iterations=_ITERATIONS,
            )
            if zero_point is not None and zero is not None:
                zero_point[chunk] = zero
            tick(weight[chunk].numel() * _STEPS_IN_ROUNDINGS)
        return encode(weight, scale, zero_point, self.scheme, mask)


PASS = Hqq
