"""``RoundedLinear``: a linear whose weight is what a codebook makes of a float weight behind it.

The gradient of the rounded weight is given to the float one as it is. While ``share`` is below 1 the linear
computes with as much of the rounding, the float weight making up the rest: a trained model is led there
rather than thrown (Mekkouri et al. 2024, "Fine-tuning LLMs to 1.58bit").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from ...numbers.straight_through import straight_through
from .codebooks import Codebook


class RoundedLinear(nn.Module):
    """``x [..., in]`` to ``[..., out]``.

    Attributes:
        latent: ``[out, groups, size]`` float32, the weight behind the codes.
        share: of the rounding that the linear computes with; what is stored has all of it.
        mask: ``[out, groups, size]`` or None. bias: ``[out]`` or None.
    """

    mask: Tensor | None

    def __init__(
        self, weight: Tensor, scheme: Scheme, codebook: Codebook, bias: Tensor | None, mask: Tensor | None
    ) -> None:
        super().__init__()
        self.scheme, self.codebook, self.share = scheme, codebook, 1.0
        out_features, in_features = weight.shape
        shape = (out_features, scheme.groups(in_features), -1)
        latent = weight.to(torch.float32).reshape(shape)
        self.register_buffer("mask", None if mask is None else mask.view(latent.shape))
        self.latent = nn.Parameter(latent, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def tensor(self) -> QTensor:
        """The weight as it is stored."""
        return self.codebook(self.latent.detach(), self.scheme, self.mask)

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
