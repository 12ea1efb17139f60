"""Causal depthwise convolutions as checkpoints store them: ``[channels, 1, width]``, some with a bias."""

from __future__ import annotations

from ..anatomy import Shapes
from ..block_parts.mixer_anatomy import CausalConvolution
from ._tensors import shape_of


def causal_convolution(shapes: Shapes, module: str, channels: int, width: int) -> CausalConvolution:
    """The convolution ``module``; sizes are enforced, and a bias is there when it is stored."""
    shape_of(shapes, f"{module}.weight", channels, 1, width)
    bias = f"{module}.bias" in shapes
    if bias:
        shape_of(shapes, f"{module}.bias", channels)
    return CausalConvolution(module, channels, width, bias)
