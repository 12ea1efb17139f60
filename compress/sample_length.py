"""What a model makes of a calibration sample: how many tokens it has, those that are asked for or all that
the model reads at once; and what else of the model decides which text it is given.
"""

from collections.abc import Sequence
from typing import TypedDict

from .model.anatomy import Anatomy
from .text.calibration_rows import Kind


class TextInputs(TypedDict):
    """What :func:`~edgepress.compress.text.calibration.calibration_from` has to know of the model."""

    kind: Kind
    vocab_size: int
    labels: Sequence[str]
    filled: int | None


def text_inputs(anatomy: Anatomy) -> TextInputs:
    """That of a model which reads text."""
    classifier = anatomy.classifier
    return {
        "kind": anatomy.kind,
        "vocab_size": anatomy.vocab_size,
        "labels": classifier.labels if classifier is not None and classifier.one_a_text else (),
        "filled": filled_length(anatomy),
    }


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
