"""Blocks that a model applies several times in a row with one set of weights: transformers' module does it
all in one call then, so that statistics, gradients and rounding see every repetition.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class RepeatedBlock(nn.Module):
    """What :func:`repeat` puts before the class of a block.

    Attributes:
        repeats: how many times a call applies the block.
    """

    repeats: int

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **named: Any) -> Tensor:
        for _ in range(self.repeats):
            hidden_states = super().forward(hidden_states, attention_mask, **named)
        return hidden_states


def repeat(block: nn.Module, repeats: int) -> None:
    """Let each call of ``block`` apply it ``repeats`` times."""
    kind = type(block)
    block.__class__ = type(f"Repeated{kind.__name__}", (RepeatedBlock, kind), {})
    block.repeats = repeats  # type: ignore[assignment]
