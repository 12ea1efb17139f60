"""A decoder cut in front of its head: the states that its blocks end with, and the logits of states.

States are as wide as the model and logits as its vocabulary, of SmolLM2 85 times as wide: an original is
remembered by the former (:mod:`..quality.known_original`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]


class BehindBlocks(Protocol):
    """A decoder that can be cut in front of its head, where its states are ``width`` numbers."""

    @property
    def width(self) -> int: ...

    def read(self, input_ids: NDArray[np.int64]) -> tuple[Numbers, Numbers | None]:
        """Logits ``[batch, length, vocab]`` of ``input_ids [batch, length]``, and the states ``[batch,
        length, hidden]`` that they are made of; None where the model does not give them."""
        ...

    def logits(self, states: Numbers) -> Numbers:
        """The logits of such states."""
        ...
