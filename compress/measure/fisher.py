"""The loss whose gradients are Fisher information, and what adds something up from them as they pass.

For a decoder the loss is ``−log p(y)`` of a token ``y`` drawn from the model, so that half the mean square of
a change is nats of KL; for an encoder a random direction, so that the mean square is a squared relative
distance. The gradients come from :mod:`edgepress.compress.pipeline.backward_sweep`, a block at a time; the
other files of this room say what is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...terminal.progress import Tick
from ..model.block_anatomy import BlockAnatomy
from ..model.skeleton import Head

LOGITS_AT_ONCE = 128  # tokens whose logits are held at once

TakeGradient = Callable[[Tensor], None]


class Observer(Protocol):
    """Adds up something of one module; ``at_input``: the gradient is that at its input, not at its output."""

    at_input: bool

    @property
    def module(self) -> str:
        """The stored name of the module: a linear, or a block."""

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        """Look at rows ``inputs [tokens, in]`` and ``outputs [tokens, out]``, ``real [tokens]`` of which are
        no padding; returns what takes their gradient, of the same shape, on the way back.
        """

    def found(self, tokens: int, scale: float) -> Tensor:
        """What was added up over so many real ``tokens``; ``scale`` makes damage a token of a sum of
        squares.
        """


@runtime_checkable
class LooksFirst(Observer, Protocol):
    """An observer that sees what its module reads of other text, before gradients pass. ``tick`` receives
    parts, which add up to 1, of what it does at the end of that.
    """

    tick: Tick

    def look(self, inputs: Tensor) -> None:
        """Take in rows ``inputs [tokens, in]`` of real tokens."""

    def end_of_looking(self) -> None:
        """All of that text was shown."""


@runtime_checkable
class ByBatch(Observer, Protocol):
    """An observer that keeps batches apart: also one of which its module sees nothing."""

    def next_batch(self) -> None:
        """What comes now is of another batch."""


# From a block and its linears' weights ``[out, in]`` by name to its observers, by the name of what they find.
Measure = Callable[[BlockAnatomy, Callable[[str], Tensor]], Mapping[str, Observer]]


def direction(head: Head | None, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient at the last hidden states ``rows [tokens, hidden]``, behind the final norm, of what is
    drawn; an encoder has no ``head``.
    """
    if head is None:
        length = rows.to(torch.float32).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return torch.randn(rows.shape, generator=generator, device=rows.device).div(length).to(rows.dtype)
    states = rows if rows.dtype == torch.float64 else rows.to(torch.float32)
    parts = [_drawn(head, part, generator) for part in torch.split(states, LOGITS_AT_ONCE)]
    return torch.cat(parts).to(rows.dtype)


def _drawn(head: Head, states: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient of ``log p(y)``: at the logits one of what is drawn, less the probabilities."""
    logits = head.logits(states)
    probabilities = torch.log_softmax(logits, -1).exp()
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    ones = torch.ones_like(drawn, dtype=logits.dtype)
    return head.backward(logits, probabilities.neg().scatter_add(-1, drawn, ones))
