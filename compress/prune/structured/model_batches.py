"""``Passage``: calibration batches through any of the blocks of a whole model in memory.

Blocks can be left out or visited twice: what choosing and mending layers needs. The model is held in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....errors import CalibrationError
from ...model.skeleton import Skeleton
from ...pipeline.block_inputs import block_inputs
from ...pipeline.forward import Batch, Smaller, propagate, spoilt
from ...pipeline.streams import Entry
from ...text.token_batch import TokenBatch

# The hidden states ``[batch, tokens, hidden]`` of each batch.
States = list[Tensor]


class Passage:
    """``entrance``: the states at the first block; ``modules``: transformers' blocks, filled."""

    def __init__(self, skeleton: Skeleton, batches: Sequence[TokenBatch], smaller: Smaller) -> None:
        self.skeleton, self.smaller = skeleton, smaller
        self.entrance: States = []
        self.entries: list[Entry] = []
        with skeleton.embeddings() as model:
            for batch in batches:
                padded = not bool(batch.attention_mask.all())
                mask = batch.attention_mask.to(skeleton.device) if padded else None
                hidden, arguments = block_inputs(skeleton, model, batch.input_ids.to(skeleton.device), mask)
                self.entrance.append(hidden)
                self.entries.append(Entry(arguments, None if mask is None else mask.to(torch.bool)))
        self.modules: list[nn.Module] = [skeleton.fill(block.prefix) for block in skeleton.anatomy.blocks]

    def batches(self, index: int, states: States) -> list[Batch]:
        """``states`` as batches at the entrance of the block ``index``."""
        return [
            Batch(hidden, entry.arguments[index], entry.mask)
            for hidden, entry in zip(states, self.entries, strict=True)
        ]

    def through(self, index: int, states: States) -> States:
        """The states that leave the block ``index``.

        Raises:
            CalibrationError: some are NaN or infinity; names the block.
        """
        left = [propagate(self.modules[index], batch, self.smaller) for batch in self.batches(index, states)]
        self.check(index, left)
        return left

    def check(self, index: int, states: States) -> None:
        """Refuse ``states`` that left the block ``index`` with NaN or infinity; raises as :meth:`through`."""
        for hidden, entry in zip(states, self.entries, strict=True):
            if bool(spoilt(hidden, entry.mask).any()):
                raise CalibrationError(
                    f"{self.skeleton.anatomy.blocks[index].prefix} turns samples into NaN or infinity",
                    fix="check the model with `edgepress inspect`, or calibrate on other text",
                )

    def rows(self, states: States) -> Tensor:
        """The states of all real tokens ``[tokens, hidden]``."""
        parts = []
        for hidden, entry in zip(states, self.entries, strict=True):
            flat = hidden.flatten(0, 1)
            parts.append(flat if entry.mask is None else flat[entry.mask.flatten()])
        return torch.cat(parts)
