"""Which losses ``distill`` knows, and which of them a kind of model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ....errors import TrainingError
from ...model.anatomy import Anatomy
from .objective import Weight

Loss = Literal[
    "forward_kl",
    "reverse_kl",
    "jensen_shannon",
    "cross_entropy",
    "cosine",
    "embedding",
    "label_kl",
    "label_cross_entropy",
    "states",
    "hidden",
    "relations",
    "attention",
    "sequence",
]
_OF_DECODERS: tuple[Loss, ...] = ("forward_kl", "reverse_kl", "jensen_shannon", "cross_entropy")
_OF_ENCODERS: tuple[Loss, ...] = ("cosine", "embedding", "label_kl", "label_cross_entropy")
_OF_BOTH: tuple[Loss, ...] = ("states", "hidden", "relations", "attention")
_OF_KIND: dict[str, tuple[Loss, ...]] = {
    "decoder": (*_OF_DECODERS, *_OF_BOTH),
    "encoder": (*_OF_ENCODERS, *_OF_BOTH),
    "encoder_decoder": ("sequence",),
}
_DEFAULT: dict[str, dict[Loss, Weight]] = {
    "decoder": {"forward_kl": 1.0},
    "encoder": {"states": 1.0, "relations": 1.0},
    "classifier": {"label_kl": 1.0, "states": 1.0, "relations": 1.0},
    "encoder_decoder": {"sequence": 1.0},
}


_OUTPUTS: dict[str, dict[Loss, Weight]] = {
    "decoder": {"forward_kl": 1.0},
    "encoder": {"states": 1.0},
    "classifier": {"label_kl": 1.0, "states": 1.0},
    "encoder_decoder": {"sequence": 1.0},
}


def losses_of(anatomy: Anatomy, asked: Mapping[Loss, Weight] | Literal["outputs"]) -> dict[Loss, Weight]:
    """The weights of the losses ``asked`` for, or of those that such a model has by default; ``outputs`` are
    those that look at nothing inside of it.

    Raises:
        TrainingError: one that such a model does not have.
    """
    kind = anatomy.kind if anatomy.classifier is None else "classifier"
    if asked == "outputs":
        return dict(_OUTPUTS[kind])
    default = _DEFAULT[kind]
    for name in asked:
        if name not in _OF_KIND[anatomy.kind]:
            raise TrainingError(
                f"the loss {name} is not one of {called(anatomy)}", fix=f"give others, by default {default}"
            )
    return dict(asked or default)


def called(anatomy: Anatomy) -> str:
    """The kind of a model in words."""
    return {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder–decoder"}[
        anatomy.kind
    ]
