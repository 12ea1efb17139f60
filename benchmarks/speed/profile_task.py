"""``ProfileTask``: what a profile is asked: bundles that have been checked, the work that they all do, and
how they run. The plan and the measurement begin with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...runtime.bundle.bundle import Bundle
from ...runtime.session.threads import thread_budget
from .protocol import Protocol
from .timed_work import Embedding, TimedGeneration, Workload


@dataclass(frozen=True)
class ProfileTask:
    """The bundles take turns, in this order; ``energy`` is counted and ``per_op`` accounted for on demand."""

    bundles: list[Bundle]
    workload: Workload
    protocol: Protocol
    threads: int
    provider: str
    energy: bool
    per_op: bool

    @classmethod
    def opened(
        cls,
        paths: Sequence[str | Path],
        *,
        prompt_tokens: int,
        new_tokens: int,
        batch: int,
        threads: int | None,
        protocol: Protocol | None,
        provider: str,
        energy: bool,
        per_op: bool = False,
    ) -> ProfileTask:
        """Open the bundles at ``paths``.

        Raises:
            InputError: they cannot do the same work. BundleError: one does not match its manifest.
        """
        protocol, bundles = protocol or Protocol(), [Bundle.open(Path(path)) for path in paths]
        return cls(
            bundles,
            workload_of(bundles, prompt_tokens, new_tokens, batch, protocol.seed),
            protocol,
            thread_budget() if threads is None else threads,
            provider,
            energy,
            per_op,
        )

    @property
    def session(self) -> dict[str, Any]:
        """With what a worker opens a bundle."""
        return {"threads": self.threads, "provider": self.provider}


def workload_of(
    bundles: Sequence[Bundle], prompt_tokens: int, new_tokens: int, batch: int, seed: int
) -> Workload:
    """What is timed of these bundles; raises InputError where they cannot do the same work."""
    kinds = {opened.kind for opened in bundles}
    if len(kinds) > 1:
        raise InputError("a decoder and an encoder do not do the same work and cannot be compared")
    workload: Workload
    if kinds == {"decoder"}:
        workload = TimedGeneration(prompt_tokens, new_tokens, seed=seed)
    else:
        workload = Embedding(prompt_tokens, batch, seed=seed)
    for opened in bundles:
        workload.check(opened)
    if kinds == {"decoder"} and len({opened.decoder.vocab_size for opened in bundles}) > 1:
        raise InputError(
            "the two bundles have vocabularies of different sizes",
            why="a token of one is not a token of the other, so tokens per second do not compare",
        )
    return workload
