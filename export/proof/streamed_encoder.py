"""The torch side of an encoder's proof: the model as transformers runs it, one block in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...compress.model.anatomy import stored_name
from ...compress.model.family import gives_tuples
from ...compress.model.torch_model import label_logits as logits_of
from ...compress.model.torch_model import tower_vectors
from ...compress.model.weights import WeightSource
from ...compress.pipeline.capture import block_inputs
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
