"""How many tokens a calibration sample has: those that are asked for, or all that a model reads at once."""

from __future__ import annotations

from .model.anatomy import Anatomy


def sample_length(anatomy: Anatomy, asked: int) -> int:
    """Tokens of a sample of the model: at most as many as it has positions. Of an image, a sound, or a text
    that is filled up, all places count, whatever is ``asked`` for.
    """
    if anatomy.hearing is not None:
        return anatomy.hearing.tokens
    if anatomy.patches is not None:
        return anatomy.max_positions
    return filled_length(anatomy) or min(asked, anatomy.max_positions)


def filled_length(anatomy: Anatomy) -> int | None:
    """How many tokens each text is filled up to with padding that the model reads; None for others."""
    return anatomy.max_positions if anatomy.tower is not None and anatomy.tower.filled else None
