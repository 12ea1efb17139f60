"""Choosing the next token: greedy, temperature, top-k, top-p, repetition penalty, with a seed.

Top-k: Fan, Lewis and Dauphin 2018, arXiv 1805.04833. Top-p (nucleus): Holtzman et al. 2019, arXiv 1904.09751.
Repetition penalty: Keskar et al. 2019 (CTRL), arXiv 1909.05858. They apply in the order penalty, temperature,
top-k, top-p. Equal logits are ranked by id, so that a seed gives the same text everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import BundleError, InputError
from ...files.limits import LARGEST_SEED

Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How to choose. ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1, ``repetition_penalty`` 1 are
    off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "temperature": (0 <= self.temperature <= 100, "between 0 (greedy) and 100"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "repetition_penalty": (0 < self.repetition_penalty <= 100, "above 0; 1 is off"),
            "seed": (self.seed is None or 0 <= self.seed <= LARGEST_SEED, f"from 0 to {LARGEST_SEED}"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)}, it must be {rule}")


def penalize(logits: Floats, seen: Ids, penalty: float) -> Floats:
    """A copy of ``logits [vocab]``, those of ``seen`` divided (if positive) or multiplied by ``penalty``."""
    result = logits.copy()
    chosen = result[seen]
    result[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return result


def _ranked(values: Floats, ids: Ids) -> Ids:
    """``ids`` (ascending) by falling value, ties by id."""
    ordered: Ids = ids[np.argsort(-values[ids], kind="stable")]
    return ordered


def _softmax(values: Floats) -> npt.NDArray[np.float64]:
    shifted = np.exp(values.astype(np.float64) - np.float64(values.max()))
    result: npt.NDArray[np.float64] = shifted / shifted.sum()
    return result


def top_k(logits: Floats, k: int) -> Ids:
    """Ids of the ``k`` largest logits, best first; all of them when ``k`` is 0 or beyond the vocabulary."""
    size = logits.shape[0]
    if k == 0 or k >= size:
        return np.arange(size, dtype=np.int64)
    threshold = np.partition(logits, size - k)[size - k]
    return _ranked(logits, np.flatnonzero(logits >= threshold))[:k]


def nucleus(probabilities: npt.NDArray[np.float64], p: float) -> Ids:
    """Indices of the fewest largest ``probabilities`` (of sum 1) that together reach ``p``, best first."""
    if p >= 1:
        return np.arange(probabilities.shape[0], dtype=np.int64)
    # What lies below this floor sums to less than 1 - p: the nucleus cannot need it, and need not sort it.
    floor = (1 - p) / probabilities.shape[0]
    ranked = _ranked(probabilities, np.flatnonzero(probabilities >= floor))
    before = np.cumsum(probabilities[ranked]) - probabilities[ranked]
    return ranked[before < p]


def candidates(logits: Floats, settings: Sampling) -> tuple[Ids, npt.NDArray[np.float64]]:
    """The ids that may be drawn and their probabilities, after temperature (above 0), top-k and top-p."""
    ids = top_k(logits, settings.top_k)
    # In float64: a tiny temperature would overflow float32.
    scaled = logits[ids].astype(np.float64)
    probabilities = _softmax((scaled - scaled.max()) / settings.temperature)
    kept = nucleus(probabilities, settings.top_p)
    mass = probabilities[kept]
    return ids[kept], mass / mass.sum()


class Sampler:
    """Draws tokens under one :class:`Sampling`; holds the generator and the tokens seen so far."""

    def __init__(self, settings: Sampling, context: Iterable[int] = ()) -> None:
        self._settings = settings
        # Loading numpy.random takes as long as a dozen tokens, and greedy decoding draws nothing.
        self._generator = np.random.default_rng(settings.seed) if settings.temperature > 0 else None
        self._seen = set(context)
        self._penalized = settings.repetition_penalty != 1

    def choose(self, logits: Floats) -> int:
        """The next id from ``logits [vocab]``."""
        if self._penalized:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            logits = penalize(logits, seen[seen < logits.shape[0]], self._settings.repetition_penalty)
        best = int(logits.argmax())
        # argmax answers with the first NaN if there is one.
        if not np.isfinite(logits[best]):
            raise BundleError(
                "the model gave a logit that is not a number",
                why=f"token {best} has {logits[best]}",
                fix="check the bundle with: edgepress validate BUNDLE --against MODEL",
            )
        token = best if self._settings.temperature == 0 else self._draw(logits)
        self._seen.add(token)
        return token

    def _draw(self, logits: Floats) -> int:
        assert self._generator is not None
        ids, probabilities = candidates(logits, self._settings)
        position = np.searchsorted(np.cumsum(probabilities), self._generator.random(), side="right")
        return int(ids[min(int(position), ids.shape[0] - 1)])
