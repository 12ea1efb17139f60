"""``RoundedLinear``: a linear whose weight is what a codebook makes of a latent weight; and what it reads.

The gradient of the rounded weight is given to the latent one as it is. While ``share`` is below 1 the linear
computes with that fraction of the rounding, the latent weight being the rest: a trained model is led there
rather than thrown (Mekkouri et al. 2024, "Fine-tuning LLMs to 1.58bit"). The codebooks, with nothing to learn
but the weight itself:

- ``ternary``: −1, 0 and 1 times the mean magnitude of a group (BitNet b1.58, Ma et al. 2024, arXiv
  2402.17764), or of the whole matrix, as there.
- ``binary``: −1 and 1 times the same (BitNet, Wang et al. 2023, arXiv 2310.11453).
- ``minmax``: the whole range of a group, as an observer sees it in every step.

Activations, keys and values are rounded in training as a runtime will round them: a scale for each token (and
head), and a gradient that passes straight through.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ...model.anatomy import Anatomy, module_name
from ...model.kv_scheme import tap
from ...numbers.fake_quant import quantize_tokens, straight_through
from ...numbers.grid import quantize, storable
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme

# From a weight ``[out, groups, size]``, a scheme and a mask of the same shape (False is zero) to the codes.
Codebook = Callable[[Tensor, Scheme, Tensor | None], QTensor]

# The rounding cells of −1, 0 and 1 are then each a third of the range.
_ELASTIC = 2 / 3


def _scale(magnitude: Tensor) -> Tensor:
    """As it is stored; 1 where all weights are zero."""
    return storable(torch.where(magnitude > 1e-7, magnitude, torch.ones_like(magnitude)))


def _signs(weight: Tensor, scale: Tensor, scheme: Scheme, mask: Tensor | None) -> QTensor:
    codes = (weight / scale.unsqueeze(-1)).round_().clamp_(-1, 1)
    if mask is not None:
        codes *= mask
    return QTensor(scheme, codes.flatten(1).to(torch.int8), scale)


def ternary(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """Codes −1, 0, 1 and the mean magnitude of each group as its scale."""
    return _signs(weight, _scale(weight.abs().mean(-1)), scheme, mask)


def ternary_of_matrix(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """The same with one scale for the whole matrix, which each group repeats."""
    scale = _scale(weight.abs().mean()).expand(weight.shape[:2]).contiguous()
    return _signs(weight, scale, scheme, mask)


def binary(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """Codes −1 and 1 (0 where the mask says so); zero counts as positive."""
    codes = torch.where(weight < 0, -1, 1).to(torch.int8)
    if mask is not None:
        codes *= mask
    return QTensor(scheme, codes.flatten(1), _scale(weight.abs().mean(-1)))


def minmax(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """All codes of ``scheme``, over the range that each group has now."""
    flat = None if mask is None else mask.flatten(1)
    return quantize(weight.flatten(1), scheme, "minmax", mask=flat)


def elastic(weight: Tensor, scheme: Scheme, mask: Tensor | None = None) -> QTensor:
    """Codes −1, 0, 1 whose scale is two thirds of the largest weight of each group: where a scale that learns
    begins (ParetoQ, Liu et al. 2025, arXiv 2502.02631).
    """
    return _signs(weight, _scale(weight.abs().amax(-1) * _ELASTIC), scheme, mask)


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


Activations = Literal["float", "int8", "int4"]

ACTIVATION_BITS: dict[Activations, int | None] = {"float": None, "int8": 8, "int4": 4}


def round_cache(model: nn.Module, anatomy: Anatomy, bits: int) -> None:
    """Let every attention of ``model`` read its keys and values rounded to ``bits``."""
    rounding = partial(quantize_tokens, bits=bits)

    def change(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(straight_through(one, rounding(one.detach())) for one in (key, value))  # type: ignore[return-value]

    for block in anatomy.blocks:
        tap(model.get_submodule(module_name(anatomy, block.attention.module)), change)
