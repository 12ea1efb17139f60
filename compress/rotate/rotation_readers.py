"""What reads rotated inputs, by samples: rows of calibration text before each layer, and rows of its weights.

Rows behind a norm are given without its scales, which the layers that read them have instead: so it is in the
rotated model, where scales are fused into the readers. One block is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..model.block_anatomy import BlockAnatomy, Linear, Norm
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..pipeline.block_inputs import block_inputs
from ..pipeline.collect import Side, collect
from ..pipeline.forward import Batch, Smaller, propagate
from ..text.calibration import Calibration
from ..text.micro_batches import micro_batches_of
from .learned_rotation import Reader

_SEQUENCES = 4  # sequences of calibration text that are looked at
_ROWS = 512  # of the stacked weights that read the same inputs
# A norm's scale below this fraction of the largest takes its channel out of the sample.
_SMALLEST_SCALE = 1e-4


@dataclass(frozen=True)
class BlockReaders:
    """The readers in one block: of the ``residual`` states, where asked for, and of the value ``heads``."""

    residual: tuple[Reader, ...]
    heads: Reader


@dataclass
class _Running:
    """A sequence on its way: its states ``[1, tokens, hidden]``, each block's arguments, its real tokens."""

    hidden: Tensor
    arguments: Sequence[Mapping[str, Any]]
    mask: Tensor | None

    def at(self, block: int) -> Batch:
        return Batch(self.hidden, self.arguments[block], self.mask)


def block_readers(
    source: WeightSource, calibration: Calibration, device: torch.device, smaller: Smaller, *, residual: bool
) -> Iterator[BlockReaders]:
    """The readers of each block in turn, with the inputs that the model in float gives them."""
    skeleton = Skeleton(source, device)
    running = _entrance(skeleton, calibration)
    for block in source.anatomy.blocks:
        module = skeleton.fill(block.prefix)
        modules = {linear.name: skeleton.submodule(linear.name) for linear in block.linears()}
        batches = [one.at(block.index) for one in running]
        wanted = {linear.name: ("sample",) for linear in block.linears()}
        side = Side(module, modules, partial(iter, batches))
        found = collect(side, None, block, wanted, smaller)
        samples = _Samples(skeleton, block, {name: kept["sample"] for name, kept in found.items()})
        yield BlockReaders(samples.residual() if residual else (), samples.heads())
        for one, batch in zip(running, batches, strict=True):
            one.hidden = propagate(module, batch, smaller)
        skeleton.free(block.prefix)


def _entrance(skeleton: Skeleton, calibration: Calibration) -> list[_Running]:
    """Some sequences, evenly over the text, at the first block."""
    micro_batches = micro_batches_of(calibration, 1)
    chosen = micro_batches[:: max(1, len(micro_batches) // _SEQUENCES)][:_SEQUENCES]
    running = []
    with skeleton.embeddings() as model:
        for micro_batch in chosen:
            padded = not bool(micro_batch.attention_mask.all())
            mask = micro_batch.attention_mask.to(skeleton.device) if padded else None
            hidden, arguments = block_inputs(skeleton, model, micro_batch.input_ids.to(skeleton.device), mask)
            running.append(_Running(hidden, arguments, None if mask is None else mask.to(torch.bool)))
    return running


class _Samples:
    """The rows that were seen before each layer of a filled block, and its weights."""

    def __init__(self, skeleton: Skeleton, block: BlockAnatomy, rows: Mapping[str, Tensor]) -> None:
        self.skeleton, self.block, self.rows = skeleton, block, rows

    def residual(self) -> tuple[Reader, ...]:
        """The layers that read the hidden states through a norm."""
        block = self.block
        first = self._behind(block.norm1, block.attention.projections)
        return first, self._behind(block.norm2, block.mlp.projections)

    def heads(self) -> Reader:
        """The layer that reads the mixed values."""
        output = self.block.attention.o
        return Reader(self.rows[output.name], self._weight((output,)))

    def _weight(self, layers: Sequence[Linear]) -> Tensor:
        """Some rows of the stacked weights, evenly, ``[rows, in]``."""
        stacked = torch.cat([self._parameter(f"{linear.name}.weight") for linear in layers])
        return stacked[:: -(-len(stacked) // _ROWS)].clone()

    def _behind(self, norm: Norm, layers: Sequence[Linear]) -> Reader:
        scales = norm.offset + self._parameter(f"{norm.name}.weight")
        usable = scales.abs() > _SMALLEST_SCALE * scales.abs().max()
        rows = torch.where(usable, self.rows[layers[0].name] / scales, 0.0)
        return Reader(rows, self._weight(layers) * scales)

    def _parameter(self, name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        module: nn.Module = self.skeleton.submodule(owner)
        return module.get_parameter(leaf).detach()
