"""What reads rotated inputs, by samples: rows of calibration text before each layer, and rows of its weights.

Rows behind a norm are given without its scales, which the layers that read them have instead: so it is in the
rotated model, where scales are fused into the readers. One block is in memory at a time. Experts are one
reader: rows that some of them read, and rows of the weights of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..model.block_anatomy import BlockAnatomy, Linear, Norm
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..pipeline.block_inputs import Stream
from ..pipeline.collect import Side, collect
from ..pipeline.forward import BatchSplitter
from ..pipeline.statistics import SampledRows
from ..text.calibration import Calibration
from ..text.micro_batches import micro_batches_of
from .learned_rotation import Reader
from .rotation import attentions_of, scales_of

_SEQUENCES = 4  # of calibration text that are looked at
_ROWS = 512  # of the stacked weights that read the same inputs
# A norm's scale below this fraction of the largest takes its channel out of the sample.
_SMALLEST_SCALE = 1e-4


@dataclass(frozen=True)
class BlockReaders:
    """The readers in one block: of the ``residual`` states, where asked for, and of the value ``heads`` of
    each attention.
    """

    residual: tuple[Reader, ...]
    heads: tuple[Reader, ...]


def block_readers(
    source: WeightSource,
    calibration: Calibration,
    device: torch.device,
    directory: Path,
    smaller: BatchSplitter,
    *,
    residual: bool,
) -> Iterator[BlockReaders]:
    """The readers of each block, one after another, with the inputs that the model in float gives them.

    Some sequences, evenly over the text, go through the blocks; their states wait in ``directory``.
    """
    skeleton, rows = Skeleton(source, device), micro_batches_of(calibration, 1)
    chosen = rows[:: max(1, len(rows) // _SEQUENCES)][:_SEQUENCES]
    inputs = Stream.capture(directory, skeleton, chosen)
    for block in source.anatomy.blocks:
        module = skeleton.fill_block(block.index)
        modules = {linear.name: skeleton.submodule(linear.name) for linear in block.linears()}
        wanted = {group[0].name: ("sample",) for group in block.inputs()}
        side = Side(module, modules, partial(inputs.raw, block.index))
        found = collect(side, None, block, wanted, smaller)
        samples = _Samples(skeleton, block, {name: kept["sample"] for name, kept in found.items()})
        yield BlockReaders(samples.residual() if residual else (), samples.heads())
        inputs.advance(block.index, module, smaller)
        skeleton.free(block.prefix)


class _Samples:
    """The rows that were seen before each layer of a filled block, and its weights."""

    def __init__(self, skeleton: Skeleton, block: BlockAnatomy, rows: Mapping[str, Tensor]) -> None:
        self.skeleton, self.block, self.rows = skeleton, block, rows

    def residual(self) -> tuple[Reader, ...]:
        """The layers that read the hidden states through a norm."""
        block = self.block
        found = [self._behind(self._scales(block.norm1), block.attention.projections)]
        if block.cross is not None:
            assert block.cross_norm is not None
            found.append(self._behind(self._scales(block.cross_norm), (block.cross.q,)))
            found.append(self._behind(self._of_memory(), (block.cross.k, block.cross.v)))
        inside = [linear for mlp in block.mlps() for linear in mlp.projections]
        return *found, self._behind(self._scales(block.norm2), inside)

    def heads(self) -> tuple[Reader, ...]:
        """The layer that reads the mixed values, of each attention."""
        outputs = [attention.o for attention in attentions_of(self.block)]
        return tuple(Reader(self._rows((output,)), self._weight((output,))) for output in outputs)

    def _scales(self, norm: Norm) -> Tensor:
        return scales_of(norm, self._parameter)

    def _of_memory(self) -> Tensor:
        """The scales of the norm behind the encoder."""
        norm = self.skeleton.anatomy.encoder_norm
        assert norm is not None
        return scales_of(norm, self.skeleton.source.tensor).to(self.skeleton.device)

    def _weight(self, layers: Sequence[Linear]) -> Tensor:
        """Some rows of the stacked weights, evenly, ``[rows, in]``."""
        stride, start, parts = -(-sum(linear.out_features for linear in layers) // _ROWS), 0, []
        for linear in layers:
            parts.append(self._parameter(f"{linear.name}.weight")[-start % stride :: stride])
            start += linear.out_features
        return torch.cat(parts)

    def _rows(self, layers: Sequence[Linear]) -> Tensor:
        """Rows that ``layers`` read: of experts some of all of them, evenly, as many as of one layer."""
        seen = {id(rows): rows for rows in (self.rows[linear.name] for linear in layers)}
        rows = torch.cat(list(seen.values()))
        return rows[:: max(1, -(-len(rows) // SampledRows.ROWS))]

    def _behind(self, scales: Tensor, layers: Sequence[Linear]) -> Reader:
        usable = scales.abs() > _SMALLEST_SCALE * scales.abs().max()
        rows = torch.where(usable, self._rows(layers) / scales, 0.0)
        return Reader(rows, self._weight(layers) * scales)

    def _parameter(self, name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        module: nn.Module = self.skeleton.submodule(owner)
        return module.get_parameter(leaf).detach()
