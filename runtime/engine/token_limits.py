"""What a decoder takes: ids of its vocabulary, and no more of them than its context holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenLimits:
    """The limits of one model."""

    vocab_size: int
    context_length: int

    def row(self, ids: Sequence[int]) -> Ids:
        """``ids`` as an array ``[1, n]``."""
        array = np.asarray(ids, dtype=np.int64).reshape(1, -1)
        if array.shape[1] == 0:
            raise InputError("there are no tokens to run", fix="give a prompt that is not empty")
        self.check_range(array)
        return array

    def check_range(self, ids: Ids) -> None:
        """Raise :class:`InputError` when one of ``ids`` (at least one) is outside the vocabulary."""
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= self.vocab_size:
            raise InputError(
                f"token id {lowest if lowest < 0 else highest} is outside the model's vocabulary of "
                f"{self.vocab_size}",
                why="the tokenizer belongs to another model, or the ids were not made with it",
            )

    def check_room(self, tokens: int) -> None:
        """Raise :class:`InputError` when a sequence of ``tokens`` exceeds the context."""
        if tokens > self.context_length:
            raise InputError(
                f"{tokens} tokens do not fit the model's context of {self.context_length}",
                fix="shorten the prompt or ask for fewer new tokens",
            )
