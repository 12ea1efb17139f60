"""What a model makes of a text before its head: one pass over its weights, a block in memory at a time. What
the encoder of an encoder–decoder makes of it can be kept, for models that differ in the decoder alone.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...terminal.progress import Progress
from ..model.block_anatomy import BlockAnatomy
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
    encoded: Stream | None = None,
) -> Tensor:
    """The states ``[tokens, hidden]`` of ``batches`` behind the last block, batch by batch; ``directory`` is
    for those that wait. Quantized layers compute as they were quantized; the embedding is ``rounded`` as
    exports store it. Where :func:`encode` has ``encoded`` the batches, the encoder does not run.
    """
    blocks = skeleton.anatomy.blocks
    stream = Stream.capture(directory, skeleton, batches, rounded=rounded)
    if encoded is not None:
        first = _first_of_decoder(skeleton)
        for number in range(len(stream.entries)):
            stream.write(first, number, *_crossed(stream.states(0, number), encoded.states(first, number)))
        stream.drop(0)
        blocks = blocks[first:]
    _run(stream, skeleton, blocks, progress, title)
    behind = len(skeleton.anatomy.blocks)
    rows = torch.cat(list(stream.rows(behind)))
    stream.drop(behind)
    return rows


def encode(
    skeleton: Skeleton, batches: Sequence[TokenBatch], directory: Path, progress: Progress, title: str
) -> Stream:
    """``batches`` behind the encoder of an encoder–decoder, where its decoder begins; in ``directory``."""
    stream = Stream.capture(directory, skeleton, batches)
    _run(stream, skeleton, skeleton.anatomy.blocks[: _first_of_decoder(skeleton)], progress, title)
    return stream


def _first_of_decoder(skeleton: Skeleton) -> int:
    return next(block.index for block in skeleton.anatomy.blocks if block.cross is not None)


def _crossed(
    captured: tuple[Tensor, Tensor | None], encoded: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, Tensor]:
    """What enters the decoder: its inputs, which waited at the encoder's first block, beside what the encoder
    made.
    """
    waiting, made = captured[1], encoded[1]
    if waiting is None or made is None:
        raise ValueError("these are no states of an encoder–decoder")
    return waiting, made


def _run(
    stream: Stream, skeleton: Skeleton, blocks: Sequence[BlockAnatomy], progress: Progress, title: str
) -> None:
    """Advance ``stream`` from the first of ``blocks`` to behind the last."""
    smaller = BatchSplitter(progress.note)
    with progress.task(title, len(blocks)) as task:
        for anatomy in blocks:
            module = skeleton.fill_block(anatomy.index)
            quantized = skeleton.source.quantized(anatomy, skeleton.device)
            cache = skeleton.source.block_scales(anatomy)
            with Block(anatomy, module, {}, quantized=quantized, kv=cache).simulated(skeleton):
                stream.advance(anatomy.index, module, smaller)
            skeleton.free(anatomy.prefix)
            return_small_blocks()
            task.advance(1)
