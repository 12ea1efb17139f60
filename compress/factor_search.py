"""The per-channel factors that let a weight be rounded with the least damage to its outputs.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv
2306.00978. An input channel that carries large activations deserves a finer step; multiplied by ``s`` before
rounding and divided after, it gets one, at the cost of its group. The factors tried are powers of the
channels' activations, alone and over the complementary power of their weights. The damage of each is computed
from the Gram of the inputs, without a forward pass, on some of the rows: the factors are one for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import quantize
from .scheme import Scheme

EXPONENTS = tuple(step / 10 for step in range(1, 11))
ROWS = 384
_FLOOR = 1e-4  # of the largest magnitude: what a channel that never fires counts as

# From a change of the weight ``[rows, in]`` to what it does to the outputs.
Damage = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """``factors [channels]`` with the powers they come from, and the damage that they leave of the plain
    one.
    """

    factors: Tensor
    label: str
    share: float


def candidates(activations: Tensor, weights: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Labelled factors ``[channels]`` around 1 from the magnitudes of activations and weights
    ``[channels]``.
    """
    yield "1", torch.ones_like(activations)
    large, heavy = _floored(activations), _floored(weights)
    for exponent in EXPONENTS:
        yield f"x^{exponent:g}", _centred(large**exponent)
        yield f"x^{exponent:g} / w^{1 - exponent:g}", _centred(large**exponent / heavy ** (1 - exponent))


def _floored(magnitudes: Tensor) -> Tensor:
    return magnitudes.clamp(min=max(float(magnitudes.max()) * _FLOOR, torch.finfo(torch.float32).tiny))


def _centred(factors: Tensor) -> Tensor:
    return factors / (factors.max() * factors.min()).sqrt()


def search(
    weight: Tensor,
    activations: Tensor,
    weights: Tensor,
    spread: Callable[[Tensor], Tensor],
    damage: Damage,
    importance: Tensor,
    scheme: Scheme,
) -> Found:
    """The factors with the least damage to ``weight [rows, in]``; rounded with all rows' ``importance [in]``.

    ``activations``, ``weights [channels]`` are magnitudes, ``spread`` makes factors of channels those of the
    inputs. Factors of one, which are the first tried, win ties.
    """
    sample = weight[:: -(-weight.shape[0] // ROWS)]
    best: Found | None = None
    plain = 0.0
    for label, factors in candidates(activations, weights):
        wide = spread(factors)
        rounded = quantize(sample * wide, scheme, "mse", importance / wide.square()).dequantize() / wide
        loss = float(damage(rounded - sample))
        if best is None:
            plain = loss
            best = Found(factors, label, 1.0)
        elif loss < best.share * plain:
            best = Found(factors, label, loss / plain)
    assert best is not None
    return best
