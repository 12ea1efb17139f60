"""Other tokens in what is learned from: little text reads differently every time.

A student that is to compute what its teacher computes needs no true text, as every input has a right answer;
with inputs that never come twice it learns the function instead of the text (Beyer et al. 2021, "Knowledge
distillation: A good teacher is patient and consistent", arXiv 2106.05237). A share of the tokens is replaced,
half of them by tokens from elsewhere in the piece and half by any of the vocabulary; the teacher reads the
same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from .pieces import Piece, generator_for


@dataclass(frozen=True)
class Noise:
    """``share`` of the tokens of every piece are replaced by others, of the ``vocabulary`` there is."""

    share: float
    vocabulary: int
    seed: int

    def rewritten(self, model: nn.Module, piece: Piece, done: float) -> Piece:
        """The piece with other tokens, another time again with others; padding stays."""
        generator = generator_for(self.seed, piece, done)
        ids, real = piece.input_ids, piece.attention_mask.bool()
        chance = torch.rand(ids.shape, generator=generator)
        there = ids[real]
        from_piece = there[torch.randint(len(there), ids.shape, generator=generator)]
        any_token = torch.randint(self.vocabulary, ids.shape, generator=generator)
        others = torch.where(chance < self.share / 2, from_piece, any_token)
        return replace(piece, input_ids=torch.where(real & (chance < self.share), others, ids))
