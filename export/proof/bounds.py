"""How far a graph may be from torch, and why so far.

Float graphs do the same sums in another order: the difference grows with the logits. A model that amplifies
the last digit (one of 2 bits, say) is allowed ``NOISE`` times what float32 itself costs it in torch, at most.
Where activations are rounded to 8 bits (in W8A8 layers, and inside ``MatMulNBits`` as shipped), a difference
in the seventh digit flips a rounding here and there, and after a few layers the roundings of two right
programs have little to do with each other. Such graphs are compared as distributions. Two independent
roundings of one size lie twice as far apart, in KL divergence, as each lies from the model without rounding;
so a graph may be ``NOISE`` times that far from torch.
"""

from __future__ import annotations

import math

from ...errors import GateFailed

ABSOLUTE, RELATIVE = 1e-4, 1e-5
NOISE = 3.0
KL_MEAN = 0.05
COSINE_DISTANCE = 0.01
CLEAR_NATS, CLEAR_SIGMAS = 1.0, 6.0
CLEAR_AGREEMENT = 0.98


def elementwise_bound(largest: float) -> float:
    """The largest allowed difference between values of which the largest magnitude is ``largest``."""
    return max(ABSOLUTE, RELATIVE * largest)


def noise_bound(floor: float, rounding: float) -> float:
    """The largest allowed distance when torch's own rounding moves it by ``rounding``."""
    return max(floor, NOISE * rounding)


def clear_margin(rounding: float) -> float:
    """By how many nats torch must prefer its token for a clear choice, one that rounding rarely changes.

    ``rounding`` is a KL divergence; ``sqrt(2 · rounding)`` is the standard deviation of a log-probability.
    """
    return max(CLEAR_NATS, CLEAR_SIGMAS * math.sqrt(2 * rounding))


def rounded(value: float) -> float:
    """``value`` with the digits that mean something."""
    return float(f"{value:.4g}")


def gate(what: str, value: float, bound: float, *, at_least: bool = False) -> None:
    """Raise :class:`GateFailed` unless ``value`` is at most (or at least) ``bound``; NaN never passes."""
    if not (value >= bound if at_least else value <= bound):
        side = "at least" if at_least else "at most"
        raise GateFailed(
            f"the exported graph failed its proof: {what} is {value:.4g}",
            why=f"it must be {side} {bound:.4g}; nothing was published",
            fix="if the model itself is sound this is a bug in the exporter: please report it; --no-validate "
            "publishes the bundle with a warning in its manifest",
        )
