"""The torch side of an encoder's proof: the model as transformers runs it, one block in memory at a time.

The torch side of an encoder–decoder's proof: its two stacks as transformers runs them, one block in memory
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...compress.model.anatomy import stored_name
from ...compress.model.family import gives_tuples
from ...compress.model.torch_model import label_logits as logits_of
from ...compress.model.torch_model import tower_vectors
from ...compress.model.weights import WeightSource
from ...compress.pipeline.capture import MEMORY, BatchContext, block_inputs, capture
from ...compress.pipeline.forward import Batch, run_block
from ...compress.text.token_batch import TokenBatch
from .streamed import Change, States, StreamedModel

Feeds = dict[str, Any]


class StreamedEncoder(StreamedModel):
    """The encoder ``source``, as its base is a decoder; what is behind its blocks stays in memory."""

    def __init__(self, source: WeightSource) -> None:
        super().__init__(source, "float32")
        anatomy, skeleton = source.anatomy, self.skeleton
        prefixes = tuple(f"{block.prefix}." for block in anatomy.blocks)
        loaded = tuple(f"{name}." for name in (*skeleton.outer_modules(), *anatomy.embedding_copies))
        for local, parameter in list(skeleton.model.named_parameters()):
            stored = stored_name(anatomy, local)
            if parameter.is_meta and not stored.startswith((*prefixes, *loaded)):
                skeleton.assign(skeleton.model, local, source.tensor(stored))

    def entered_by(self, batches: Sequence[Feeds], *, rounded: bool = False) -> list[States]:
        """What the first block reads of each of ``batches``, the embedding ``rounded`` as it is stored."""
        found = []
        with self.skeleton.embeddings(rounded=rounded) as model:
            for feeds in batches:
                given = torch.from_numpy(feeds.get("pixel_values", feeds.get("input_ids")))
                mask = feeds.get("attention_mask")
                mask = None if mask is None or mask.all() else torch.from_numpy(mask)
                found.append(States(*block_inputs(self.skeleton, model, given, mask)))
        return found

    def through(
        self, module: nn.Module, index: int, states: Sequence[States], change: Change | None = None
    ) -> list[States]:
        """``states`` after the block ``index``, which is ``module``, with a ``change`` of it."""
        return [self.run(module, index, one, change) for one in states]

    @contextmanager
    def leaving(self) -> Iterator[Given]:
        """The model as if its last block left what is set as ``states``."""
        # MPNet takes states and biases apart.
        tuples = gives_tuples(self.source.reader.config) or bool(self.source.anatomy.position_biases)
        given = Given(self.skeleton.model, tuples=tuples)
        stacks = self.skeleton.stacks()
        kept = [list(stack) for stack in stacks]
        for stack, modules in zip(stacks, kept, strict=True):
            for at, module in enumerate(modules):
                stack[at] = _Stub(module, given)
        try:
            with self.skeleton.embeddings():
                yield given
        finally:
            for stack, modules in zip(stacks, kept, strict=True):
                for at, module in enumerate(modules):
                    stack[at] = module


class Given:
    """``model``, whose blocks all give ``states``."""

    def __init__(self, model: nn.Module, *, tuples: bool) -> None:
        self.model, self.tuples = model, tuples
        self.states = torch.empty(0)


class _Stub(nn.Module):
    """Stands in for a block; of what else it is asked, such as the kind of its attention, the block knows."""

    def __init__(self, block: nn.Module, given: Given) -> None:
        super().__init__()
        self.block, self.given = (block,), given  # in a tuple, so that it is no part of this module

    def forward(self, *_states: Tensor, **_arguments: Any) -> Any:
        return (self.given.states, None) if self.given.tuples else self.given.states

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block[0], name)


@torch.no_grad()
def hidden_states(model: nn.Module, feeds: Feeds) -> torch.Tensor:
    """``[batch, seq, hidden]`` of an encoder's last layer."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return model.base_model(**tensors).last_hidden_state  # type: ignore[operator, no-any-return]


@torch.no_grad()
def vectors_of_tower(model: nn.Module, feeds: Feeds) -> torch.Tensor:
    """``[batch, size]`` of one of two encoders."""
    return tower_vectors(model(**{name: torch.from_numpy(value) for name, value in feeds.items()}))


@torch.no_grad()
def label_logits(model: nn.Module, feeds: Feeds) -> torch.Tensor:
    """``[batch, labels]`` of a classifier of texts, ``[batch, seq, labels]`` of one of tokens or spans."""
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return logits_of(model(**tensors))


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
