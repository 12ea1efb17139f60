"""``QTensor``: the one quantized weight. Every algorithm produces it, every format reads it.

``weight ≈ (codes − zero_point) · scale`` with one scale per group of input channels. Codes are unpacked:
packing belongs to a format. Zero is always representable, so that pruned weights survive, but in three types
of GGUF (:mod:`.block_types`), two of which subtract a ``minimum``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import ShapeError
from .number_format import E4M3
from .scheme import Scheme

_TILE_WEIGHTS = 1 << 17  # float32 temporaries of so many stay in the second-level cache


def row_tiles(matrix: Tensor, most: int = _TILE_WEIGHTS) -> Iterator[slice]:
    """Runs of rows of ``matrix [out, in]`` with about ``most`` elements each; on a GPU all rows at once."""
    out_features, in_features = matrix.shape
    step = max(1, most // max(1, in_features)) if matrix.device.type == "cpu" else max(1, out_features)
    for start in range(0, out_features, step):
        yield slice(start, start + step)


@dataclass(frozen=True)
class QTensor:
    """A quantized matrix.

    Attributes:
        scheme: bits, group size and symmetry.
        codes: ``[out, in]`` int8, or E4M3 where that is the format; within ``scheme.code_range``.
        scale: ``[out, groups]`` float32, not zero (in GGUF's types of an all-zero group); negative only of
            symmetric integers of few bits, and of GGUF's types.
        zero_point: ``[out, groups]`` int8 in the code range, or None when symmetric.
        minimum: ``[out, groups]`` float32, subtracted, or None.
        input_scale: of the activations, where it was found in calibration (``scheme.calibrated``).
    """

    scheme: Scheme
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    input_scale: float | None = None
    minimum: Tensor | None = None

    def __post_init__(self) -> None:
        out_features, in_features = self.codes.shape
        expected = (out_features, self.scheme.groups(in_features))
        if tuple(self.scale.shape) != expected:
            raise ShapeError(f"scale has shape {tuple(self.scale.shape)}, codes need {expected}")
        if self.scheme.symmetric != (self.zero_point is None):
            raise ShapeError("a zero point belongs to asymmetric schemes, and to them only")

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self, dtype: torch.dtype = torch.float32, rows: slice = slice(None)) -> Tensor:
        """The ``rows`` of the weight ``[out, in]`` that the codes stand for."""
        codes, scales = self.codes[rows], self.scale[rows]
        zeros = None if self.zero_point is None else self.zero_point[rows]
        weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for tile in row_tiles(codes):
            scale = scales[tile].to(torch.float32).unsqueeze(-1)
            grouped = codes[tile].view(*scale.shape[:2], -1).to(torch.float32)
            if zeros is not None:
                grouped -= zeros[tile].to(torch.float32).unsqueeze(-1)
            place = weight[tile].view(grouped.shape)
            torch.mul(grouped, scale, out=place)
            if self.minimum is not None:
                place -= self.minimum[rows][tile].unsqueeze(-1)
        return weight

    def to(self, device: torch.device | str) -> QTensor:
        """The same tensor on ``device``."""
        zero_point = None if self.zero_point is None else self.zero_point.to(device)
        minimum = None if self.minimum is None else self.minimum.to(device)
        codes, scale = self.codes.to(device), self.scale.to(device)
        return replace(self, codes=codes, scale=scale, zero_point=zero_point, minimum=minimum)

    def rows(self, order: Tensor) -> QTensor:
        """The rows ``order [rows]`` of the matrix, in that order."""
        zero_point = None if self.zero_point is None else self.zero_point[order]
        minimum = None if self.minimum is None else self.minimum[order]
        plain = self.codes.view(torch.uint8) if self.codes.dtype == E4M3 else self.codes
        codes = plain[order].view(self.codes.dtype)
        return replace(self, codes=codes, scale=self.scale[order], zero_point=zero_point, minimum=minimum)


def stacked(parts: Sequence[QTensor]) -> QTensor:
    """The matrix of the rows of ``parts``, which share one scheme, one below the other."""
    zeros = [part.zero_point for part in parts if part.zero_point is not None]
    codes, scale = torch.cat([part.codes for part in parts]), torch.cat([part.scale for part in parts])
    return replace(parts[0], codes=codes, scale=scale, zero_point=torch.cat(zeros) if zeros else None)
