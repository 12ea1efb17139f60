"""How far a graph may be from torch, and why so far.

Float graphs do the same sums in another order: the difference grows with the logits, not with the model. Quantized
graphs as shipped also round activations to 8 bits inside ``MatMulNBits``; one flipped rounding moves a logit by tenths
after thirty layers, so they are compared as distributions, and only their float twin elementwise.
"""

from __future__ import annotations

from ...errors import GateFailed

ABSOLUTE, RELATIVE = 1e-4, 1e-5
KL_MEAN = 0.05
TOP1 = 0.9
PERPLEXITY_RATIO = 1.05
COSINE = 0.99


def elementwise_bound(largest: float) -> float:
    """The largest allowed difference between values of which the largest magnitude is ``largest``."""
    return max(ABSOLUTE, RELATIVE * largest)


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
            fix="if the model itself is sound this is a bug in the exporter: please report it; --no-validate publishes "
            "the bundle with a warning in its manifest",
        )
