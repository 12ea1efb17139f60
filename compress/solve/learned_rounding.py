"""``LearnedRounding``: the codes of a layer as the rounding of its weights, with an offset for each weight
and clip factors for each group that learn by the sign of their gradients.

Cheng et al. 2023, "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs", arXiv
2309.05516. The weight is ``scale · (clamp(round(anchor / scale + offset) + zero_point) − zero_point)``;
gradients pass straight through the rounding. ``anchor`` is the weight itself where the layer begins rounded
to nearest; where it begins with other codes it is the point of each code's cell that lies nearest to the
weight, so that no offset means those codes.

A large layer is worked on a few rows at a time, and an anchor is found again where it is needed: what stays
in memory beside the weight is its offsets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numbers.fake_quant import straight_through
from ..numbers.grid import storable
from ..numbers.qtensor import QTensor, row_tiles

_MARGIN = 1e-3  # of a step, between an anchor and the edge of its cell
_SMALLEST_CLIP, _LARGEST_CLIP = 0.5, 1.5


@dataclass(frozen=True)
class Rounded:
    """Rows of a weight as they are rounded now, ``[rows, groups, size]``.

    ``steps`` are codes less zero points, ``inside`` is 1 where no clipping took place, and ``position`` is
    the anchor in units of the scale.
    """

    steps: Tensor
    inside: Tensor
    position: Tensor


class LearnedRounding:
    """The rounding of one layer in learning.

    Args:
        original: ``[out, in]`` float32, what the codes stand for; it must not change meanwhile. start: the
            codes and grid to begin with.
        mask: bool ``[out, in]``; weights where it is False are and stay zero.

    Attributes:
        offset: ``[out, groups, size]`` in [−0.5, 0.5]. clip: ``[2, out, groups]``, factors on the lower and
            upper end of the grid; for a symmetric scheme ``[1, out, groups]``, on both.
    """

    def __init__(self, original: Tensor, start: QTensor, mask: Tensor | None = None) -> None:
        self.scheme, self.start = start.scheme, start
        shape = (*start.scale.shape, -1)
        self.original = original.view(shape)
        self.mask = None if mask is None else mask.view(shape)
        self.offset = torch.zeros_like(self.original)
        self.clip = torch.ones(1 if start.zero_point is None else 2, *shape[:2], device=original.device)

    def _anchor(self, rows: slice) -> Tensor:
        lowest, highest = self.scheme.code_range
        weight, scale = self.original[rows], self.start.scale[rows].unsqueeze(-1)
        codes = self.start.codes[rows].view(weight.shape).to(torch.float32)
        zero = self._start_zero(rows)
        low, high = codes - (0.5 - _MARGIN), codes + (0.5 - _MARGIN)
        # The cells of the outermost codes have no outer edge.
        low[codes == lowest], high[codes == highest] = -torch.inf, torch.inf
        position = weight / scale if zero is None else weight / scale + zero
        position = torch.maximum(torch.minimum(position, high), low)
        return scale * (position if zero is None else position - zero)

    def _start_zero(self, rows: slice) -> Tensor | None:
        zero = self.start.zero_point
        return None if zero is None else zero[rows].to(torch.float32).unsqueeze(-1)

    def _tiles(self) -> Iterator[slice]:
        return row_tiles(self.start.codes)

    def grid(self, clip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point ``[out, groups]`` for clip factors, differentiable in them."""
        start = self.start.scale
        if self.start.zero_point is None:
            scale = start * clip[0]
            return straight_through(scale, storable(scale.detach())), None
        lowest, highest = self.scheme.code_range
        zero = self.start.zero_point.to(torch.float32)
        low, high = (lowest - zero) * start * clip[0], (highest - zero) * start * clip[1]
        scale = (high - low) / (highest - lowest)
        scale = straight_through(scale, storable(scale.detach()))
        exact = lowest - low / scale
        zero = straight_through(exact, exact.detach().round())
        # The bounds themselves learn; a clamp of torch 2.15 gives them no gradient.
        bounded = zero.detach().clamp(lowest, highest)
        return scale, torch.where(zero == bounded, zero, bounded)

    def _rounded(self, rows: slice, scale: Tensor, zero_point: Tensor | None) -> Rounded:
        """The ``rows``; ``scale``, ``zero_point [out, groups]`` are of all."""
        position = self._anchor(rows) / scale[rows].unsqueeze(-1)
        steps = (position + self.offset[rows]).round_()
        lowest, highest = self.scheme.code_range
        if zero_point is None:
            clipped = steps.clamp(lowest, highest)
        else:
            zero = zero_point[rows].unsqueeze(-1)
            clipped = torch.clamp(steps, lowest - zero, highest - zero)
        inside = (clipped == steps).to(steps.dtype)
        if self.mask is not None:
            clipped *= self.mask[rows]
            inside *= self.mask[rows]
        return Rounded(clipped, inside, position)

    def write(self, weight: Tensor) -> None:
        """Make ``weight [out, in]`` what the codes stand for now."""
        scale, zero_point = self.grid(self.clip)
        for rows in self._tiles():
            steps = self._rounded(rows, scale, zero_point).steps
            weight[rows] = steps.mul_(scale[rows].unsqueeze(-1)).flatten(1)

    def learn(self, gradient: Tensor, rate: float, clip_rate: float) -> None:
        """Move against the sign of the gradients, given that of the weight ``[out, in]``."""
        clip = self.clip.clone().requires_grad_(True)
        scale, zero_point = self.grid(clip)
        fixed, zero = scale.detach(), None if zero_point is None else zero_point.detach()
        for_scale, outside = torch.empty_like(fixed), torch.empty_like(fixed)
        outer = gradient.view(self.offset.shape)
        for rows in self._tiles():
            now = self._rounded(rows, fixed, zero)
            kept = outer[rows] if self.mask is None else outer[rows] * self.mask[rows]
            for_scale[rows] = (kept * (now.steps - now.inside * now.position)).sum(-1)
            outside[rows] = (kept * (1 - now.inside)).sum(-1)
            # A step up is a larger weight only where the scale is positive.
            upward = now.inside * fixed[rows].sign().unsqueeze(-1)
            self.offset[rows].sub_(rate * (outer[rows] * upward).sign_()).clamp_(-0.5, 0.5)
        outputs, gradients = [scale], [for_scale]
        if zero_point is not None:
            outputs.append(zero_point)
            gradients.append(-fixed * outside)
        (for_clip,) = torch.autograd.grad(outputs, clip, gradients)
        self.clip.sub_(clip_rate * for_clip.sign()).clamp_(_SMALLEST_CLIP, _LARGEST_CLIP)

    def tensor(self) -> QTensor:
        """The layer as it is rounded now."""
        scale, zero_point = self.grid(self.clip)
        zero = None if zero_point is None else zero_point.to(torch.int8)
        codes = torch.empty_like(self.start.codes)
        for rows in self._tiles():
            steps = self._rounded(rows, scale, zero_point).steps
            codes[rows] = (steps if zero is None else steps + zero[rows].unsqueeze(-1)).flatten(1)
        return QTensor(self.scheme, codes, scale, zero)
