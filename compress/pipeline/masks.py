"""Masks of pruned weights on disk, a bit a weight: how they pass from one sweep of a recipe to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..model.block_anatomy import BlockAnatomy


def packed(mask: Tensor) -> Tensor:
    """``mask [out, in]`` bool as uint8 ``[out · in / 8]`` rounded up."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpacked(bits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Inverse of :func:`packed`."""
    count = shape[0] * shape[1]
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool)).view(shape)


class Masks:
    """The masks in ``files`` (safetensors of packed bits by linear name), read a block at a time."""

    def __init__(self, files: Mapping[str, Path] | None = None) -> None:
        self._file_of = dict(files or {})

    @classmethod
    def open(cls, paths: list[Path]) -> Masks:
        """All masks in ``paths``."""
        found: dict[str, Path] = {}
        for path in paths:
            with safe_open(path, "pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        return cls(found)

    @property
    def names(self) -> frozenset[str]:
        """The linears that have a mask."""
        return frozenset(self._file_of)

    def of(self, block: BlockAnatomy, device: torch.device) -> dict[str, Tensor]:
        """Bool masks ``[out, in]`` of a block's linears, True keeps."""
        masks = {}
        for linear in block.linears():
            if linear.name in self._file_of:
                with safe_open(self._file_of[linear.name], "pt") as file:
                    bits = file.get_tensor(linear.name)
                masks[linear.name] = unpacked(bits, (linear.out_features, linear.in_features)).to(device)
        return masks
