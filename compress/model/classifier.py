"""``Classifier``: the head that gives a text its label, from the state of its first token: data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Classifier:
    """``out(activation(dense(x)))``, where ``x`` is the last state of the first token.

    Attributes:
        dense: the full name of the linear module ``[hidden, hidden]`` that comes first.
        out: the full name of the linear module ``[labels, hidden]`` that gives the logits.
        labels: their names, in the order of the logits.
    """

    dense: str
    activation: Literal["tanh", "relu"]
    out: str
    labels: tuple[str, ...]
