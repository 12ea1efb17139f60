"""The torch side of an encoder–decoder's proof: its two stacks as transformers runs them, one block in memory
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...compress.model.weights import WeightSource
from ...compress.pipeline.capture import MEMORY, BatchContext, capture
from ...compress.pipeline.forward import Batch, run_block
from ...compress.text.token_batch import TokenBatch
from .streamed import Change, StreamedModel


@dataclass(frozen=True)
class PairStates:
    """Of each batch the states ``[rows, tokens, hidden]`` at one block.

    Attributes:
        waiting: those at the first block of the decoder, while it is the encoder's turn.
        read: what the decoder reads of the encoder, from then on.
        entries: what all blocks are called with.
    """

    hidden: tuple[Tensor, ...]
    waiting: tuple[Tensor, ...]
    read: tuple[Tensor, ...]
    entries: tuple[BatchContext, ...]


class StreamedPair(StreamedModel):
    """The encoder–decoder ``source``, as its base is a decoder.

    Attributes:
        first: the number of the decoder's first block.
    """

    def __init__(self, source: WeightSource, kv_dtype: str) -> None:
        super().__init__(source, kv_dtype)
        self.first = source.anatomy.layers()[0]

    def entered(self, batches: Sequence[TokenBatch], *, rounded: bool = False) -> PairStates:
        """What the first blocks of both stacks read of ``batches``, the embedding ``rounded`` as it is
        stored.
        """
        found = list(capture(self.skeleton, batches, rounded=rounded))
        waiting = tuple(one.waiting for one in found if one.waiting is not None)
        return PairStates(tuple(one.hidden for one in found), waiting, (), tuple(one.entry for one in found))

    def through(
        self, module: nn.Module, index: int, states: PairStates, change: Change | None = None
    ) -> PairStates:
        """``states`` after the block ``index``, which is ``module``, with a ``change`` of it."""
        outputs = []
        with nullcontext() if change is None else change(module, index):
            for number, (hidden, entry) in enumerate(zip(states.hidden, states.entries, strict=True)):
                arguments = dict(entry.arguments[index])
                if entry.decodes(index):
                    arguments[MEMORY] = states.read[number]
                outputs.append(run_block(module, Batch(hidden, arguments, None)))
        return replace(states, hidden=tuple(outputs))

    def crossed(self, states: PairStates) -> PairStates:
        """``states`` behind the encoder's last block, where the decoder begins to read them."""
        read = tuple(self.normed(self.source.anatomy.encoder_norm, one) for one in states.hidden)
        return replace(states, hidden=states.waiting, waiting=(), read=read)

    @torch.no_grad()
    def keys_and_values(
        self, module: nn.Module, index: int, states: PairStates, change: Change | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the decoder's block ``index``, which is ``module``, makes of what was read of the first batch,
        both ``[rows, tokens, width]``.
        """
        part = self.blocks[index].cross
        assert part is not None
        with nullcontext() if change is None else change(module, index):
            key, value = (self.skeleton.submodule(one.name)(states.read[0]) for one in (part.k, part.v))
        return key, value

    def swept(self, states: PairStates, changes: Sequence[Change]) -> Iterator[PairStates]:
        """What ``states`` at the first block become behind the last one, with each of ``changes``."""
        several = [states for _ in changes]
        for index in range(len(self.blocks)):
            if index == self.first:
                several = [self.crossed(one) for one in several]
            with self.block(index) as module:
                pairs = zip(several, changes, strict=True)
                several = [self.through(module, index, one, change) for one, change in pairs]
        return iter(several)
