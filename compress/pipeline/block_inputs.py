"""What enters the blocks of a model: the hidden states at the first, and the arguments that each is called
with.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ..model.skeleton import Skeleton


class _Caught(Exception):
    pass


class _Catcher(nn.Module):
    """Stands in for a block: keeps what it was called with and hands the hidden states on."""

    def __init__(self, block: nn.Module, *, last: bool) -> None:
        super().__init__()
        self.names = list(signature(block.forward).parameters)[1:]
        self.last = last
        self.hidden: Tensor | None = None
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Tensor:
        self.hidden = hidden_states
        self.arguments = {**dict(zip(self.names, positional, strict=False)), **named}
        if self.last:
            raise _Caught
        return hidden_states


def block_inputs(
    skeleton: Skeleton, model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Hidden states ``[batch, tokens, hidden]`` at the entrance of the first block, and the keyword arguments
    that each block is called with: masks may differ from block to block.
    """
    blocks = skeleton.block_modules()
    kept = list(blocks)
    catchers = [_Catcher(block, last=block is kept[-1]) for block in kept]
    try:
        for index, catcher in enumerate(catchers):
            blocks[index] = catcher
        extra = {"use_cache": False} if skeleton.anatomy.kind == "decoder" else {}
        with torch.no_grad():
            model(input_ids=input_ids, attention_mask=attention_mask, **extra)
    except _Caught:
        pass
    finally:
        for index, block in enumerate(kept):
            blocks[index] = block
    hidden = catchers[0].hidden
    if hidden is None or catchers[-1].hidden is None:
        raise CheckpointError(f"the blocks of a {skeleton.anatomy.model_type} model were never called")
    return hidden, [catcher.arguments for catcher in catchers]
