"""What an engine is: variants to choose from, and ``generate``, which says when each token was known.

Standard library only: this file runs in every peer's environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Variant:
    """One way in which an engine stores a model.

    Attributes:
        label: for tables.
        bits: of the weights of the linear layers; 32 and 16 are floating point.
        head_bits: of embedding and head.
        slow: an engine so slow that one round has to do.
        stored_as: the variant whose files it runs, when it has none of its own.
    """

    label: str
    bits: int
    head_bits: int
    slow: bool = False
    stored_as: str = ""


@dataclass(frozen=True)
class Source:
    """The checkpoint that is converted.

    Attributes:
        checkpoint: a Hugging Face directory with float32 safetensors and a tokenizer.
        group_size: input channels per scale, where the engine lets one choose.
    """

    checkpoint: Path
    group_size: int


@dataclass(frozen=True)
class Settings:
    """How an engine runs: CPU threads, and the longest sequence there will be, in tokens."""

    threads: int
    context: int


@dataclass
class Generated:
    """Token ids in order, and the moment on ``time.perf_counter`` at which each was known."""

    tokens: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def add(self, token: int) -> None:
        """The next token, known now."""
        self.moments.append(time.perf_counter())
        self.tokens.append(token)


class Engine(Protocol):
    """A loaded model."""

    def generate(self, ids: Sequence[int], new_tokens: int) -> Generated:
        """Greedy, from an empty cache, never stopping early."""


@dataclass(frozen=True)
class Stepwise:
    """An engine driven token by token.

    Attributes:
        first: forgets everything, reads a prompt and gives the token after it.
        following: takes a token and gives the next.
    """

    first: Callable[[Sequence[int]], int]
    following: Callable[[int], int]

    def generate(self, ids: Sequence[int], new_tokens: int) -> Generated:
        """See :class:`Engine`."""
        found = Generated()
        found.add(self.first(ids))
        while len(found.tokens) < new_tokens:
            found.add(self.following(found.tokens[-1]))
        return found
