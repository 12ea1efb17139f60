"""``TernaryLinear``: a linear whose weights are −1, 0 or 1 times a scale, through a float weight behind them.

BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): the scale is the mean magnitude of the float weights, here of
a group of them, and the codes are what they round to within one step of zero. The gradient of the rounded
weight is given to the float one as it is. While ``share`` is below 1 the linear computes with as much of the
rounding, the float weight making up the rest: a trained model is led there rather than thrown (Mekkouri et
al. 2024, "Fine-tuning LLMs to 1.58bit").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..grid import storable
from ..qtensor import QTensor
from ..scheme import Scheme
from ..straight_through import straight_through


def ternary(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """``weight [out, groups, size]`` as codes −1, 0, 1 and a scale for each group; 0 where ``mask`` is False.
    A group of zeros has scale 1.
    """
    magnitude = weight.abs().mean(-1)
    scale = storable(torch.where(magnitude > 1e-7, magnitude, torch.ones_like(magnitude)))
    codes = (weight / scale.unsqueeze(-1)).round_().clamp_(-1, 1)
    if mask is not None:
        codes *= mask
    return QTensor(scheme, codes.flatten(1).to(torch.int8), scale)


class TernaryLinear(nn.Module):
    """``x [..., in]`` to ``[..., out]``.

    Attributes:
        latent: ``[out, groups, size]`` float32, the weight behind the codes.
        share: of the rounding that the linear computes with; what is stored has all of it.
        mask: ``[out, groups, size]`` or None. bias: ``[out]`` or None.
    """

    mask: Tensor | None

    def __init__(self, weight: Tensor, scheme: Scheme, bias: Tensor | None, mask: Tensor | None) -> None:
        super().__init__()
        self.scheme, self.share = scheme, 1.0
        out_features, in_features = weight.shape
        shape = (out_features, scheme.groups(in_features), -1)
        latent = weight.to(torch.float32).reshape(shape)
        self.register_buffer("mask", None if mask is None else mask.view(latent.shape))
        self.latent = nn.Parameter(latent, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def tensor(self) -> QTensor:
        """The weight as it is stored."""
        return ternary(self.latent.detach(), self.scheme, self.mask)

    @property
    def weight(self) -> Tensor:
        """The weight ``[out, in]`` that is computed with; with all of the rounding what is stored, to the
        bit.
        """
        latent = self.latent if self.mask is None else torch.where(self.mask, self.latent, 0.0)
        rounded = self.tensor().dequantize()
        flat = latent.flatten(1)
        if self.share < 1:
            rounded = torch.lerp(flat.detach(), rounded, self.share)
        return straight_through(flat, rounded)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)
