"""A quantized matrix as ternary codes and scales, for the forms that hold nothing else."""

from __future__ import annotations

import numpy as np

from ...compress.numbers.qtensor import QTensor
from ...errors import ShapeError
from ._ternary_blocks import Codes, Scales


def is_ternary(tensor: QTensor) -> bool:
    """Whether all codes are −1, 0 or 1, at two bits and without zero points."""
    scheme = tensor.scheme
    return scheme.format == "int" and scheme.bits == 2 and scheme.symmetric and int(tensor.codes.min()) >= -1


def codes_and_scales(tensor: QTensor) -> tuple[Codes, Scales]:
    """``[rows, columns]`` int8 and ``[rows, groups]`` float32."""
    return tensor.codes.numpy(), np.asarray(tensor.scale.numpy(), np.float32)


def one_scale(tensor: QTensor, name: str) -> float:
    """The scale that all groups of the matrix ``name`` have.

    Raises:
        ShapeError: there are several.
    """
    scales = tensor.scale.unique()  # type: ignore[no-untyped-call]
    if len(scales) > 1:
        raise ShapeError(
            f"{name} has {len(scales)} scales, the BitNet form has one for a matrix",
            fix="train with `scales: matrix`",
        )
    return float(scales[0])
