"""What a model makes of a text before its head: one pass over its weights, a block in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...terminal import Progress
from ..model.skeleton import Skeleton
from ..text.token_batch import TokenBatch
from .block import Block
from .block_inputs import Stream
from .device import return_small_blocks
from .forward import BatchSplitter


def last_states(
    skeleton: Skeleton,
    batches: Sequence[TokenBatch],
    directory: Path,
    progress: Progress,
    title: str,
    *,
    rounded: bool = False,
) -> Tensor:
    """The states ``[tokens, hidden]`` of ``batches`` behind the last block, batch by batch; ``directory`` is
    for those that wait. Quantized layers compute as they were quantized; the embedding is ``rounded`` as
    exports store it.
    """
    smaller, blocks = BatchSplitter(progress.note), skeleton.anatomy.blocks
    stream = Stream.capture(directory, skeleton, batches, rounded=rounded)
    with progress.task(title, len(blocks)) as task:
        for anatomy in blocks:
            module = skeleton.fill(anatomy.prefix)
            quantized = skeleton.source.quantized(anatomy, skeleton.device)
            cache = skeleton.source.block_scales(anatomy)
            with Block(anatomy, module, {}, quantized=quantized, kv=cache).simulated(skeleton):
                stream.advance(anatomy.index, module, smaller)
            skeleton.free(anatomy.prefix)
            return_small_blocks()
            task.advance(1)
    rows = torch.cat(list(stream.rows(len(blocks))))
    stream.drop(len(blocks))
    return rows
