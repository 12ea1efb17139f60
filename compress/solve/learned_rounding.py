"""``LearnedRounding``: the codes of a layer as the rounding of its weights, with an offset for each weight
and clip factors for each group that learn by the sign of their gradients.

Cheng et al. 2023, "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs", arXiv
2309.05516. The weight is ``scale · (clamp(round(anchor / scale + offset) + zero_point) − zero_point)``;
gradients pass straight through the rounding. ``anchor`` is the weight itself where the layer begins rounded
to nearest; where it begins with other codes it is the point of each code's cell that lies nearest to the
weight, so that no offset means those codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..numbers.fake_quant import straight_through
from ..numbers.grid import storable
from ..numbers.qtensor import QTensor

_MARGIN = 1e-3  # of a step, between an anchor and the edge of its cell
_SMALLEST_CLIP, _LARGEST_CLIP = 0.5, 1.5


@dataclass(frozen=True)
class Rounded:
    """A weight as it is rounded now, ``[out, groups, size]``.

    ``steps`` are codes less zero points, ``inside`` is 1 where no clipping took place, and ``position`` is
    the anchor in units of the scale.
    """

    steps: Tensor
    inside: Tensor
    position: Tensor


class LearnedRounding:
    """The rounding of one layer in learning.

    Args:
        weight: ``[out, in]`` float32, what the codes stand for. start: the codes and grid to begin with.
        mask: bool ``[out, in]``; weights where it is False are and stay zero.

    Attributes:
        offset: ``[out, groups, size]`` in [−0.5, 0.5]. clip: ``[2, out, groups]``, factors on the lower and
            upper end of the grid; for a symmetric scheme ``[1, out, groups]``, on both.
    """

    def __init__(self, weight: Tensor, start: QTensor, mask: Tensor | None = None) -> None:
        self.scheme, self.start = start.scheme, start
        shape = (*start.scale.shape, -1)
        self.mask = None if mask is None else mask.view(shape)
        self.anchor = self._anchored(weight.to(torch.float32).view(shape))
        self.offset = torch.zeros_like(self.anchor)
        self.clip = torch.ones(1 if start.zero_point is None else 2, *start.scale.shape, device=weight.device)

    def _anchored(self, weight: Tensor) -> Tensor:
        lowest, highest = self.scheme.code_range
        scale, codes = self.start.scale.unsqueeze(-1), self.start.codes.view(weight.shape).to(torch.float32)
        zero = self._start_zero()
        low, high = codes - (0.5 - _MARGIN), codes + (0.5 - _MARGIN)
        # The cells of the outermost codes have no outer edge.
        low[codes == lowest], high[codes == highest] = -torch.inf, torch.inf
        position = weight / scale if zero is None else weight / scale + zero
        position = torch.maximum(torch.minimum(position, high), low)
        return scale * (position if zero is None else position - zero)

    def _start_zero(self) -> Tensor | None:
        zero = self.start.zero_point
        return None if zero is None else zero.to(torch.float32).unsqueeze(-1)

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
        return scale, straight_through(exact, exact.detach().round()).clamp(lowest, highest)

    def _rounded(self, scale: Tensor, zero_point: Tensor | None) -> Rounded:
        position = self.anchor / scale.unsqueeze(-1)
        steps = (position + self.offset).round_()
        lowest, highest = self.scheme.code_range
        if zero_point is None:
            clipped = steps.clamp(lowest, highest)
        else:
            zero = zero_point.unsqueeze(-1)
            clipped = torch.clamp(steps, lowest - zero, highest - zero)
        inside = (clipped == steps).to(steps.dtype)
        if self.mask is not None:
            clipped *= self.mask
            inside *= self.mask
        return Rounded(clipped, inside, position)

    def weight(self) -> Tensor:
        """What the codes stand for now, ``[out, in]``."""
        scale, zero_point = self.grid(self.clip)
        steps = self._rounded(scale, zero_point).steps
        return steps.mul_(scale.unsqueeze(-1)).view(self.start.shape)

    def learn(self, gradient: Tensor, rate: float, clip_rate: float) -> None:
        """Move against the sign of the gradients, given that of the weight ``[out, in]``."""
        clip = self.clip.clone().requires_grad_(True)
        scale, zero_point = self.grid(clip)
        now = self._rounded(scale.detach(), None if zero_point is None else zero_point.detach())
        outer = gradient.view(self.anchor.shape)
        kept = outer if self.mask is None else outer * self.mask
        for_scale = (kept * (now.steps - now.inside * now.position)).sum(-1)
        outputs, gradients = [scale], [for_scale]
        if zero_point is not None:
            outputs.append(zero_point)
            gradients.append(-scale.detach() * (kept * (1 - now.inside)).sum(-1))
        (for_clip,) = torch.autograd.grad(outputs, clip, gradients)
        # A step up is a larger weight only where the scale is positive.
        upward = now.inside * scale.detach().sign().unsqueeze(-1)
        self.offset.sub_(rate * (outer * upward).sign_()).clamp_(-0.5, 0.5)
        self.clip.sub_(clip_rate * for_clip.sign()).clamp_(_SMALLEST_CLIP, _LARGEST_CLIP)

    def tensor(self) -> QTensor:
        """The layer as it is rounded now."""
        scale, zero_point = self.grid(self.clip)
        steps = self._rounded(scale, zero_point).steps
        zero = None if zero_point is None else zero_point.to(torch.int8)
        codes = steps if zero_point is None else steps + zero_point.unsqueeze(-1)
        return QTensor(self.scheme, codes.view(self.start.shape).to(torch.int8), scale, zero)

    def state(self) -> tuple[Tensor, Tensor]:
        """A copy of what learned."""
        return self.offset.clone(), self.clip.clone()

    def restore(self, state: tuple[Tensor, Tensor]) -> None:
        """Go back to a :meth:`state`."""
        self.offset, self.clip = state[0].clone(), state[1].clone()
