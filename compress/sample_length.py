"""How many tokens a calibration sample has: those that are asked for, or all that a model reads at once."""

from __future__ import annotations

from .model.anatomy import Anatomy


def sample_length(anatomy: Anatomy, asked: int) -> int:
    """Tokens of a sample of the model: at most as many as it has positions. Of an image, a sound, or a text
    that is filled up with padding which the model reads, all places count, whatever is ``asked`` for.
    """
    if anatomy.hearing is not None:
        return anatomy.hearing.tokens
    filled = anatomy.tower is not None and anatomy.tower.filled
    return (
        anatomy.max_positions if filled or anatomy.patches is not None else min(asked, anatomy.max_positions)
    )
