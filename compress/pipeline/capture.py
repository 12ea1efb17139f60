"""What blocks are called with: token batches run up to the first block, and past it through blocks that hand
on what they get, for the arguments of the others.

Of an encoder–decoder both stacks are called at once: its decoder is given what is to be written, behind the
token that answers begin with, and no real state of the encoder.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ..model.family import gives_tuples
from ..model.generation_tokens import start_token
from ..model.skeleton import Skeleton
from ..text.micro_batches import MicroBatch
from ..text.token_batch import TokenBatch, model_inputs
from .forward import StopForward, until_stopped

MEMORY = "encoder_hidden_states"  # as blocks of decoders call the encoder's states
# What the blocks of a stack add to their scores by distance, of so many tokens, by the table it comes from.
Biases = dict[tuple[str, int], Tensor]


class Tokens(Protocol):
    """``input_ids`` and ``attention_mask``, as in :class:`~..text.token_batch.TokenBatch`."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def attention_mask(self) -> Tensor: ...


@dataclass(frozen=True)
class Crossing:
    """Where the decoder of an encoder–decoder begins: at the block ``first``. Its blocks read what left the
    encoder's last one through ``norm``. ``mask`` is of the tokens that it is given, as
    :attr:`BatchContext.mask` is of the encoder's.
    """

    first: int
    norm: nn.Module
    mask: Tensor | None


@dataclass(frozen=True)
class BatchContext:
    """What a batch keeps: the keyword arguments of each block, and the mask of its real tokens."""

    arguments: Sequence[Mapping[str, Any]]
    mask: Tensor | None
    crossing: Crossing | None = None

    def decodes(self, block: int) -> bool:
        """Whether ``block``, or what is behind the last one, is the decoder's in an encoder–decoder."""
        return self.crossing is not None and block >= self.crossing.first

    def crosses(self, block: int, to: int) -> bool:
        """Whether ``block`` is the encoder's, and ``to`` the decoder's."""
        return self.decodes(to) and not self.decodes(block)

    def mask_at(self, block: int) -> Tensor | None:
        """The mask of the real tokens whose states enter ``block``."""
        return self.crossing.mask if self.crossing is not None and self.decodes(block) else self.mask


class Captured(NamedTuple):
    """Of a batch the states ``[batch, tokens, hidden]`` at the first block; ``waiting``, those at the first
    block of the decoder of an encoder–decoder; and what it keeps for all blocks.
    """

    hidden: Tensor
    waiting: Tensor | None
    entry: BatchContext


class _Recorder(nn.Module):
    """Stands in for a block: keeps what it was called with and hands the hidden states on; of what else it is
    asked, such as the kind of its attention, the block knows.

    ``bias`` is what the blocks of the stack share of their positions, where the first of them makes it.
    """

    def __init__(
        self, block: nn.Module, *, last: bool, tuples: bool, bias: Callable[[int], Tensor] | None
    ) -> None:
        super().__init__()
        self.block = (block,)  # in a tuple, so that it is no part of this module
        self.names = list(signature(block.forward).parameters)[1:]
        self.last, self.tuples, self.bias = last, tuples, bias
        self.hidden: Tensor | None = None
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Any:
        self.hidden = hidden_states
        self.arguments = {**dict(zip(self.names, positional, strict=False)), **named}
        self.arguments.pop(MEMORY, None)
        if self.last:
            raise StopForward
        if self.bias is not None:
            return hidden_states, self.bias(hidden_states.shape[1]), None
        return (hidden_states, None) if self.tuples else hidden_states

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block[0], name)


def block_inputs(
    skeleton: Skeleton, model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Hidden states ``[batch, tokens, hidden]`` at the first block of a model of one stack, and the keyword
    arguments that each block is called with: masks may differ from block to block.
    """
    (hidden,), arguments = _inputs_of_stacks(skeleton, model, input_ids, attention_mask, None, {})
    return hidden, arguments


def _inputs_of_stacks(
    skeleton: Skeleton,
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    decoder_ids: Tensor | None,
    biases: Biases,
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """As :func:`block_inputs` has it, the states of each stack."""
    stacks = skeleton.stacks()
    kept = [list(stack) for stack in stacks]
    tuples = gives_tuples(skeleton.source.reader.config)
    shared = [_shared_bias(skeleton, number, biases) for number in range(len(stacks))]
    recorders = [
        [_Recorder(block, last=block is kept[-1][-1], tuples=tuples, bias=bias) for block in blocks]
        for blocks, bias in zip(kept, shared, strict=True)
    ]
    extra: dict[str, Any] = {} if decoder_ids is None else {"decoder_input_ids": decoder_ids}
    extra |= {} if skeleton.anatomy.kind == "encoder" else {"use_cache": False}
    try:
        _put(stacks, recorders)
        until_stopped(lambda: model(**model_inputs(input_ids, attention_mask), **extra))
    finally:
        _put(stacks, kept)
    hidden = [blocks[0].hidden for blocks in recorders]
    if recorders[-1][-1].hidden is None:
        raise CheckpointError(f"the blocks of a {skeleton.anatomy.model_type} model were never called")
    found = [states for states in hidden if states is not None]
    return found, [recorder.arguments for blocks in recorders for recorder in blocks]


def _put(stacks: Sequence[nn.ModuleList], blocks: Sequence[Sequence[nn.Module]]) -> None:
    for stack, modules in zip(stacks, blocks, strict=True):
        for index, module in enumerate(modules):
            stack[index] = module


def _shared_bias(skeleton: Skeleton, number: int, known: Biases) -> Callable[[int], Tensor] | None:
    """What gives the bias of so many tokens in a stack whose first block has the table; None for others."""
    anatomy = skeleton.anatomy
    stack = list(dict.fromkeys(block.stack for block in anatomy.blocks))[number]
    table = next((name for name in anatomy.position_biases if name.startswith(f"{stack}.")), None)
    if table is None:
        return None
    attention: Any = skeleton.submodule(table.rpartition(".")[0])

    def bias(tokens: int) -> Tensor:
        if (table, tokens) not in known:
            with torch.no_grad():
                known[table, tokens] = attention.compute_bias(tokens, tokens, device=skeleton.device)
        return known[table, tokens]

    return bias


def capture(skeleton: Skeleton, batches: Iterable[Tokens], *, rounded: bool = False) -> Iterator[Captured]:
    """What becomes of each of ``batches`` before the first block; the embedding is ``rounded`` as exports
    store it.
    """
    device, biases = skeleton.device, Biases()
    with skeleton.embeddings(rounded=rounded) as model:
        for batch in batches:
            ids, mask = batch.input_ids.to(device), _mask(batch.attention_mask, device)
            if skeleton.anatomy.kind != "encoder_decoder":
                hidden, arguments = block_inputs(skeleton, model, ids, mask)
                yield Captured(hidden, None, BatchContext(arguments, _bool(mask)))
                continue
            written = batch.written() if isinstance(batch, TokenBatch | MicroBatch) else batch
            given = behind_start(written.input_ids.to(device), start_token(model))
            (hidden, waiting), arguments = _inputs_of_stacks(skeleton, model, ids, mask, given, biases)
            known = _bool(_mask(written.attention_mask, device))
            crossing = Crossing(skeleton.anatomy.layers()[0], _encoder_norm(skeleton), known)
            yield Captured(hidden, waiting, BatchContext(arguments, _bool(mask), crossing))


def behind_start(ids: Tensor, start: int) -> Tensor:
    """What a decoder is given of ``ids [batch, tokens]`` that it is to write: those before each."""
    return torch.cat([ids.new_full((len(ids), 1), start), ids[:, :-1]], 1)


def _encoder_norm(skeleton: Skeleton) -> nn.Module:
    norm = skeleton.anatomy.encoder_norm
    return nn.Identity() if norm is None else copy.deepcopy(skeleton.submodule(norm.name))


def _mask(mask: Tensor, device: torch.device) -> Tensor | None:
    """None where all tokens are real."""
    return None if bool(mask.all()) else mask.to(device)


def _bool(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.to(torch.bool)
