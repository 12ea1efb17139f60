"""The search for the scales of GGUF's K-quants (:mod:`.block_types`).

The squared error, weighted by the importance of each input channel where it is known, is made small in three
steps: by group the best real scale and minimum of many spans, fitted by least squares; units from their
largest; then alternately for each group the best of the neighbouring integers, and for each super-block the
units that fit its codes best. What is kept is the best that was seen, as it will be stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from .block_types import BLOCK_TYPES, SEARCHED, BlockType
from .qtensor import QTensor
from .scheme import Scheme

_CHUNK_WEIGHTS = 1 << 17  # searched at once: the temporaries stay in the second-level cache
# Spans that are tried, as steps of the grid beyond its end; units beside the plainest; turns of each.
_BEYOND = tuple(0.15 * step for step in range(-7, 9))
_UNITS, _TURNS, _FITS = (1.0, 0.93, 1.07), 2, 2
_SMALL = 1e-30
_SINGULAR = 1e-6  # of two columns that are nearly one
_DEAD = 1e-4  # of the mean importance: what no text used keeps its weights about


@dataclass(frozen=True)
class _Grid:
    """Units ``[blocks]``, and the integers ``[blocks, groups]`` that count scales and minima in them."""

    unit: Tensor
    scales: Tensor
    low_unit: Tensor
    minima: Tensor

    @property
    def scale(self) -> Tensor:
        return self.unit[:, None] * self.scales

    @property
    def minimum(self) -> Tensor:
        return self.low_unit[:, None] * self.minima


class _Search:
    """For weights ``[blocks, groups, size]`` with ``importance`` of the same shape."""

    def __init__(self, weight: Tensor, importance: Tensor, kind: BlockType) -> None:
        self.weight, self.importance, self.kind = weight, importance, kind

    def codes(self, scale: Tensor, minimum: Tensor) -> Tensor:
        """The nearest ones on grids ``[blocks, groups]``."""
        inverse = torch.where(scale == 0, scale, 1 / scale)
        return self.kind.nearest((self.weight + minimum[..., None]).mul_(inverse[..., None]))

    def error(self, codes: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
        """By group."""
        left = codes * scale[..., None]
        left -= minimum[..., None]
        left -= self.weight
        return left.square_().mul_(self.importance).sum(-1)

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, scale and minimum, as they are stored."""
        scale, minimum = self._by_group()
        best: _Grid | None = None
        for factor in _UNITS:
            grid = self._counted(scale, minimum, factor)
            for _ in range(_TURNS):
                grid = self._refitted(self._neighbours(grid))
                best = grid if best is None else self._better(best, grid)
        assert best is not None
        best = self._neighbours(best)
        return self.codes(best.scale, best.minimum), best.scale, best.minimum

    def _better(self, best: _Grid, grid: _Grid) -> _Grid:
        """By super-block."""
        errors = [
            self.error(self.codes(one.scale, one.minimum), one.scale, one.minimum).sum(-1)
            for one in (best, grid)
        ]
        better = errors[1] < errors[0]
        pairs = [
            (getattr(grid, name), getattr(best, name)) for name in ("unit", "scales", "low_unit", "minima")
        ]
        return _Grid(*(torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs))

    def _by_group(self) -> tuple[Tensor, Tensor]:
        """Real scales and minima ``[blocks, groups]``, each group by itself."""
        least, low = None, self.weight.amin(-1).clamp(max=0)
        scale = minimum = torch.zeros_like(low)
        for start in self._spans(low):
            tried = start, -low if self.kind.minima else torch.zeros_like(low)
            for _ in range(_FITS):
                tried = self._fitted(self.codes(*tried), *tried)
            error = self.error(self.codes(*tried), *tried)
            if least is None:
                scale, minimum, least = *tried, error
            better = error < least
            scale, minimum, least = (
                torch.where(better, new, old)
                for new, old in zip((*tried, error), (scale, minimum, least), strict=True)
            )
        return scale, minimum

    def _spans(self, low: Tensor) -> Iterator[Tensor]:
        """Scales that are worth a try."""
        lowest, highest = self.kind.codes
        if self.kind.minima:
            span = self.weight.amax(-1) - low
            yield from (span / (highest + beyond) for beyond in _BEYOND)
            return
        peak = self.weight.gather(-1, self.weight.abs().argmax(-1, keepdim=True))[..., 0]
        for end, beyond in product((lowest, highest), _BEYOND):
            yield peak / (end + beyond * self.kind.step * (-1 if end < 0 else 1))

    def _fitted(self, codes: Tensor, scale: Tensor, minimum: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and minimum by least squares for ``codes``; as they were where nothing determines them."""
        weighed = codes * self.importance
        power, cross = (weighed * codes).sum(-1), (weighed * self.weight).sum(-1)
        plain = torch.where(power > _SMALL, cross / power.clamp(min=_SMALL), scale)
        if not self.kind.minima:
            return plain, minimum
        count, first = self.importance.sum(-1), weighed.sum(-1)
        mean = (self.weight * self.importance).sum(-1)
        determinant = count * power - first.square()
        solvable = determinant > _SINGULAR * count * power
        divisor = torch.where(solvable, determinant, torch.ones_like(determinant))
        both = (count * cross - mean * first) / divisor
        low = (first * cross - power * mean) / divisor
        usable = solvable & (low >= 0) & (both > 0)
        return torch.where(usable, both, plain.clamp(min=0)), torch.where(usable, low, torch.zeros_like(low))

    def _counted(self, scale: Tensor, minimum: Tensor, factor: float) -> _Grid:
        """On units in which the largest scale and minimum are about the largest integers."""
        lowest, highest = self.kind.scales
        peak = scale.gather(-1, scale.abs().argmax(-1, keepdim=True))[..., 0]
        unit = _half(factor * peak / (lowest if lowest < 0 else highest))
        low_unit = _half(factor * minimum.amax(-1) / max(self.kind.minima, 1))
        return _Grid(
            unit,
            _counts(scale, unit, lowest, highest),
            low_unit,
            _counts(minimum, low_unit, 0, self.kind.minima),
        )

    def _neighbours(self, grid: _Grid) -> _Grid:
        """By group the best of the integers beside those of ``grid``."""
        scales, minima, least = grid.scales, grid.minima, None
        steps = (0, -1, 1)
        for up, lower in product(steps, steps if self.kind.minima else (0,)):
            near = (grid.scales + up).clamp(*self.kind.scales)
            low = (grid.minima + lower).clamp(0, self.kind.minima)
            scale, minimum = grid.unit[:, None] * near, grid.low_unit[:, None] * low
            error = self.error(self.codes(scale, minimum), scale, minimum)
            if least is None:
                least = error
                continue
            better = error < least
            scales, minima, least = (
                torch.where(better, new, old) for new, old in ((near, scales), (low, minima), (error, least))
            )
        return _Grid(grid.unit, scales, grid.low_unit, minima)

    def _refitted(self, grid: _Grid) -> _Grid:
        """The units that fit the codes of ``grid`` best, with its integers."""
        codes = self.codes(grid.scale, grid.minimum)
        rising, falling = codes * grid.scales[..., None], -grid.minima[..., None].expand_as(codes)

        def sums(one: Tensor, other: Tensor) -> Tensor:
            return (one * other * self.importance).sum((-1, -2))

        power, cross = sums(rising, rising), sums(rising, self.weight)
        unit = torch.where(power > _SMALL, cross / power.clamp(min=_SMALL), grid.unit)
        if not self.kind.minima:
            return _Grid(_half(unit), grid.scales, grid.low_unit, grid.minima)
        low_power, both, low_cross = (
            sums(falling, falling),
            sums(rising, falling),
            sums(falling, self.weight),
        )
        determinant = power * low_power - both.square()
        solvable = determinant > _SINGULAR * power * low_power
        divisor = torch.where(solvable, determinant, torch.ones_like(determinant))
        first = (cross * low_power - low_cross * both) / divisor
        second = (low_cross * power - cross * both) / divisor
        usable = solvable & (first > 0) & (second >= 0)
        return _Grid(
            _half(torch.where(usable, first, grid.unit)),
            grid.scales,
            _half(torch.where(usable, second, grid.low_unit)),
            grid.minima,
        )


def _half(values: Tensor) -> Tensor:
    return values.to(torch.float16).to(torch.float32)


def _counts(values: Tensor, unit: Tensor, lowest: int, highest: int) -> Tensor:
    inverse = torch.where(unit == 0, unit, 1 / unit)[:, None]
    return (values * inverse).round_().clamp_(lowest, highest)


def quantize_blocks(
    weight: Tensor, scheme: Scheme, importance: Tensor | None = None, tick: Tick = unseen
) -> QTensor:
    """``weight [out, in]`` in a type of GGUF; ``importance [in]`` weighs the squared error of each input
    channel. ``tick`` receives the weights that are done, times what each takes.
    """
    kind = BLOCK_TYPES[scheme.format]
    in_features = weight.shape[1]
    of_row = torch.ones(in_features, device=weight.device) if importance is None else importance
    of_row = of_row.to(torch.float32).clamp(min=_DEAD * float(of_row.mean()))
    rows = max(1, _CHUNK_WEIGHTS // in_features)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for chunk in torch.split(weight.to(torch.float32), rows):
        blocks = chunk.reshape(-1, kind.groups, kind.size)
        weighed = of_row.expand(len(chunk), -1).reshape(blocks.shape)
        codes, scale, minimum = _Search(blocks, weighed, kind).run()
        shape = len(chunk), -1
        parts.append((codes.reshape(shape).to(torch.int8), scale.reshape(shape), minimum.reshape(shape)))
        tick(chunk.numel() * SEARCHED)
    codes, scale, minimum = (torch.cat(found) for found in zip(*parts, strict=True))
    return QTensor(scheme, codes, scale, minimum=minimum if kind.minima else None)
