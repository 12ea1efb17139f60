"""Which per-channel factors to fold: candidates tried in turn, and the one that does least damage.

The candidates are powers of what the channels carry. AWQ (Lin et al. 2023, "AWQ: Activation-aware Weight
Quantization for LLM Compression and Acceleration", arXiv 2306.00978) raises weights whose activations are
large, and may lower those that are large themselves. SmoothQuant (Xiao et al. 2022, "SmoothQuant: Accurate
and Efficient Post-Training Quantization for Large Language Models", arXiv 2211.10438) shares the peaks
between the two sides. What a candidate damages is the caller's to say; factors of one are tried first and
win ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

EXPONENTS = tuple(step / 10 for step in range(1, 11))
_FLOOR = 1e-4  # of the largest magnitude: what a channel that never fires counts as

Candidates = Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class Found:
    """``factors [channels]``, how they were made, and the share that they leave of the first one's damage."""

    factors: Tensor
    label: str
    share: float


def search(candidates: Candidates, damage: Callable[[Tensor], float]) -> Found:
    """The candidate with the least ``damage``; the first one is what the others are measured by."""
    found: Found | None = None
    plain = 0.0
    for label, factors in candidates:
        loss = damage(factors)
        if found is None:
            found, plain = Found(factors, label, 1.0), loss
        elif loss < found.share * plain:
            found = Found(factors, label, loss / plain)
    assert found is not None
    return found


def powers(activations: Tensor, weights: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Powers of the activations, alone and over the complementary power of the weights, ``[channels]``."""
    yield "1", torch.ones_like(activations)
    large, heavy = _floored(activations), _floored(weights)
    for exponent in EXPONENTS:
        yield f"x^{exponent:g}", _centred(large**exponent)
        yield f"x^{exponent:g} / w^{1 - exponent:g}", _centred(large**exponent / heavy ** (1 - exponent))


def migrations(activations: Tensor, weights: Tensor, exponents: Iterable[float]) -> Candidates:
    """Peaks of the activations over those of the weights, ``x^α / w^(1−α)`` ``[channels]``."""
    yield "1", torch.ones_like(activations)
    large, heavy = _floored(activations), _floored(weights)
    for exponent in exponents:
        yield f"x^{exponent:g} / w^{1 - exponent:g}", _centred(large**exponent / heavy ** (1 - exponent))


def _floored(magnitudes: Tensor) -> Tensor:
    return magnitudes.clamp(min=max(float(magnitudes.max()) * _FLOOR, torch.finfo(torch.float32).tiny))


def _centred(factors: Tensor) -> Tensor:
    return factors / (factors.max().sqrt() * factors.min().sqrt())
