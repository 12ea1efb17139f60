"""Noise: the asked share of tokens changes, padding never, and a resumed run reads the same."""

from __future__ import annotations

import torch
from edgepress.compress.training.noise import Noise
from edgepress.compress.training.pieces import Piece
from torch import nn

ROWS, LENGTH, VOCABULARY = 8, 400, 4096
IDS = torch.arange(100, 200).repeat(ROWS, LENGTH // 100)
MASK = torch.ones_like(IDS)
MASK[:, :40] = 0
PIECE = Piece(3, IDS, MASK, int(MASK.sum()), counted_from=2)
MODEL = nn.Identity()


def test_a_share_of_the_real_tokens_is_another() -> None:
    noise = Noise(0.3, VOCABULARY, seed=1)
    found = noise.rewritten(MODEL, PIECE, 0.5)
    real, changed = MASK.bool(), found.input_ids != IDS
    assert not changed[~real].any()
    assert abs(float(changed[real].float().mean()) - 0.3) < 0.03
    from_piece = changed & (found.input_ids >= 100) & (found.input_ids < 200)
    assert abs(float(from_piece[real].float().mean()) - 0.15) < 0.03
    assert int(found.input_ids.max()) < VOCABULARY and int(found.input_ids.max()) > 3900
    assert (found.number, found.tokens, found.counted_from) == (3, PIECE.tokens, 2)


def test_it_is_another_each_time_and_the_same_for_a_resumed_run() -> None:
    noise = Noise(0.3, VOCABULARY, seed=1)
    first = noise.rewritten(MODEL, PIECE, 0.5).input_ids
    assert torch.equal(first, noise.rewritten(MODEL, PIECE, 0.5).input_ids)
    assert not torch.equal(first, noise.rewritten(MODEL, PIECE, 0.6).input_ids)
    assert not torch.equal(first, Noise(0.3, VOCABULARY, seed=2).rewritten(MODEL, PIECE, 0.5).input_ids)
