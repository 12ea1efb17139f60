"""What a stage writes: each block as one safetensors file, quantized, changed or untouched, and its masks.

The files are joined by :mod:`edgepress.compress.model.checkpoint.shard_writer`. Masks of pruned weights, a
bit a weight, pass from one sweep of a recipe to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..model.block_anatomy import BlockAnatomy, Linear
from ..model.checkpoint.quantization_config import PUBLISHED, forms
from ..model.checkpoint.stored_tensors import stored
from ..model.checkpoint.tensor_names import stacked
from ..model.family import looks_at_weights
from ..model.kv_scheme import stored_scales
from ..model.weights import WeightSource
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from .block import Block


class BlockWriter:
    """Writes the parts of a changed ``source`` below ``directory``.

    ``schemes``: the scheme that each linear ends with, which decides the form it is stored in.
    """

    def __init__(self, source: WeightSource, schemes: Mapping[str, Scheme], directory: Path) -> None:
        self.source, self.directory = source, directory
        looked_at = looks_at_weights(source.reader.config)
        self.forms = forms(schemes.values(), source.conv1d, looked_at=looked_at)
        experts = {linear.name for linear in source.anatomy.stacked_experts()}
        if schemes and schemes.keys() == experts and {one.format for one in self.forms} == {"mxfp4"}:
            self.forms = dict.fromkeys(self.forms, PUBLISHED)

    def stored_types(self, anatomy: BlockAnatomy) -> dict[str, torch.dtype]:
        """The precision on disk of every float tensor of a block."""
        names = self.source.names(f"{anatomy.prefix}.")
        return {name: self.source.stored_type(name) for name in names}

    def write(self, block: Block) -> Path:
        """Write the block, and its masks beside it; returns the path of the block's file."""
        changed = {name: block.parameter(name) for name in block.changed}
        return self.part(block.anatomy, block.quantized, changed, block.masks, stored_scales(block.kv))

    def part(
        self,
        anatomy: BlockAnatomy,
        quantized: Mapping[str, QTensor],
        changed: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        extra: Mapping[str, Tensor] | None = None,
        place: int | None = None,
    ) -> Path:
        """Write a block of which the linears ``quantized`` are codes and the parameters ``changed`` are new,
        by stored name; ``extra`` tensors join them, ``masks`` go beside them. With a ``place`` its names are
        those of the block of that number in its stack.
        """
        index = anatomy.index

        def named(name: str) -> str:
            return name if place is None else numbered(name, anatomy, place)

        tensors = self.tensors(anatomy, quantized, changed) | dict(extra or {})
        self._save_masks(index, {named(name): mask for name, mask in masks.items()})
        renamed = {named(name): tensor for name, tensor in tensors.items()}
        return _save(self.directory / "parts" / f"{index:04d}.safetensors", stacked(renamed))

    def tensors(
        self, anatomy: BlockAnatomy, quantized: Mapping[str, QTensor], changed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What :meth:`part` writes of a block, by stored name."""
        group_scales = _largest_scales(anatomy, quantized)
        return self._tensors(self.source.names(f"{anatomy.prefix}."), quantized, changed, group_scales)

    def _save_masks(self, index: int, masks: Mapping[str, Tensor]) -> None:
        if masks:
            bits = {name: packed(mask) for name, mask in masks.items()}
            _save(self.directory / "masks" / f"{index:04d}.safetensors", bits)

    def exactly(
        self, anatomy: BlockAnatomy, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> Path:
        """Write ``tensors`` as the block, whatever the source has there, and ``masks`` beside it."""
        self._save_masks(anatomy.index, masks or {})
        return _save(self.directory / "parts" / f"{anatomy.index:04d}.safetensors", stacked(tensors))

    def outer(
        self, changed: Mapping[str, Tensor] | None = None, extra: Mapping[str, Tensor] | None = None
    ) -> Path:
        """Write everything outside the blocks, in its stored type; ``changed`` and ``extra`` as in
        :meth:`part`.
        """
        anatomy = self.source.anatomy
        prefixes = tuple(f"{block.prefix}." for block in anatomy.blocks)
        names = [name for name in self.source.names() if not name.startswith(prefixes)]
        names = [name for name in names if name not in anatomy.copies()]
        tensors = self._tensors(names, {}, changed or {}, {}) | dict(extra or {})
        return _save(self.directory / "parts" / "outer.safetensors", tensors)

    def _tensors(
        self,
        names: Sequence[str],
        quantized: Mapping[str, QTensor],
        changed: Mapping[str, Tensor],
        group_scales: Mapping[str, float],
    ) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name in names:
            module = name.removesuffix(".weight")
            if module in quantized:
                tensor = quantized[module]
                tensors |= stored(module, tensor, self.forms[tensor.scheme], group_scales.get(module))
            elif name in changed:
                value = self.source.as_stored(name, changed[name])
                tensors[name] = value.to(self.source.stored_type(name))
            else:
                tensors |= self._untouched(name)
        return tensors

    def _untouched(self, name: str) -> dict[str, Tensor]:
        if name in self.source.reader.shapes and name.removesuffix(".weight") not in self.source.schemes:
            return self.source.reader.read([name])
        return {name: self.source.as_stored(name, self.source.tensor(name))}


def numbered(name: str, block: BlockAnatomy, index: int) -> str:
    """The stored ``name`` of something in ``block`` when that is the block ``index``."""
    return f"{block.stack}.{index}.{name.removeprefix(f'{block.prefix}.')}"


def _largest_scales(anatomy: BlockAnatomy, quantized: Mapping[str, QTensor]) -> dict[str, float]:
    """By linear in NVFP4, the largest scale of all that read the same inputs: runtimes fuse them into one."""
    largest: dict[str, float] = {}
    for group in anatomy.inputs():
        names = [linear.name for linear in group if linear.name in quantized]
        names = [name for name in names if quantized[name].scheme.format == "nvfp4"]
        top = max((float(quantized[name].scale.max()) for name in names), default=0.0)
        largest |= dict.fromkeys(names, top)
    return largest


def _save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    return path


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
        found = ((linear.name, self.one(linear)) for linear in block.linears())
        return {name: mask.to(device) for name, mask in found if mask is not None}

    def one(self, linear: Linear) -> Tensor | None:
        """The mask of ``linear``, or None where all of it is kept."""
        if linear.name not in self._file_of:
            return None
        with safe_open(self._file_of[linear.name], "pt") as file:
            bits = file.get_tensor(linear.name)
        return unpacked(bits, (linear.out_features, linear.in_features))
