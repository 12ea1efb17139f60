"""How far a graph is from torch, how far it may be, and why so far.

Float graphs do the same sums in another order: the difference grows with the logits. A model that amplifies
the last digit (one of 2 bits, say) is allowed ``NOISE`` times what float32 itself costs it in torch, at most.
Where activations are rounded to 8 bits (in W8A8 layers, and inside ``MatMulNBits`` as shipped), a difference
in the seventh digit flips a rounding here and there, and after a few layers the roundings of two right
programs have little to do with each other. Such graphs are compared as distributions: by KL divergence, top-1
agreement and perplexity. Two independent roundings of one size lie twice as far apart, in KL divergence, as
each lies from the model without rounding; so a graph may be ``NOISE`` times that far from torch.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GateFailed

ABSOLUTE, RELATIVE = 1e-4, 1e-5
NOISE = 3.0
KL_MEAN = 0.05
CACHE_FRACTION = 0.5
COSINE_DISTANCE = 0.01
CLEAR_NATS, CLEAR_SIGMAS = 1.0, 6.0
CLEAR_AGREEMENT = 0.98
# Positions whose distributions are compared at once.
_AT_ONCE = 16
Floats = NDArray[np.float32]
LogProbs = NDArray[np.float64]


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
            fix="if the model itself is right this is a bug in the exporter: please report it; --no-validate "
            "publishes the bundle with a warning in its manifest",
        )


def compare(
    found: Iterable[Floats],
    reference: Iterable[Floats],
    unrounded: Iterable[Floats],
    ids: NDArray[np.int64],
    rounded_inputs: Callable[[], Iterable[Floats]],
) -> dict[str, Any]:
    """How far ``found`` lies from ``reference``, both logits ``[seq, vocab]`` of each row of ``ids [batch,
    seq]``; the reference is read twice.

    ``unrounded`` are torch's logits without any rounding beyond that of the linears' weights: their distance
    from the reference is the size of the rounding noise. Where that does not explain the distance,
    ``rounded_inputs`` is called: torch's logits with the inputs of every quantized linear in 8 bits, as the
    kernels have them.
    """
    rows = zip(ids, found, reference, unrounded, strict=True)
    divergences, noise, agreed, leads, surprises = np.concatenate([_compared(*row) for row in rows], axis=1)
    kl, rounding = float(divergences.mean()), float(noise.mean())
    if kl > noise_bound(KL_MEAN, rounding):
        pairs = zip(reference, rounded_inputs(), strict=True)
        extra = [divergence(*map(log_softmax, piece)) for pair in pairs for piece in _pieces(*pair)]
        rounding = max(rounding, float(np.concatenate(extra).mean()))
    clear = leads >= clear_margin(rounding)
    clearly, bound = float(agreed[clear].mean()) if clear.any() else 1.0, noise_bound(KL_MEAN, rounding)
    gate("the mean KL divergence of the quantized graph from torch", kl, bound)
    gate("its agreement where torch's choice is clear", clearly, CLEAR_AGREEMENT, at_least=True)
    return {
        "kl_mean": rounded(kl),
        "kl_of_rounding": rounded(rounding),
        "top1_agreement": rounded(float(agreed.mean())),
        "top1_agreement_where_clear": rounded(clearly),
        "perplexity_ratio": rounded(float(np.exp(np.nanmean(surprises)))),
        "positions": int(ids.size),
        "clear_positions": int(clear.sum()),
        "bounds": {"kl_mean": rounded(bound), "top1_agreement_where_clear": CLEAR_AGREEMENT},
    }


def compare_caches(found: Floats, reference: Floats, unrounded: Floats, module: str) -> dict[str, Any]:
    """How far ``found`` lies from ``reference``, both what leaves ``module``: of a graph whose caches hold
    codes and which rounds nothing else, and torch's with keys and values rounded alike.

    ``unrounded`` are torch's without that rounding. A code that falls the other way costs a part of it.
    """
    distance, rounding = (float(np.abs(one - reference).mean()) for one in (found, unrounded))
    bound = max(elementwise_bound(float(np.abs(reference).max())), CACHE_FRACTION * rounding)
    gate(f"the mean difference of {module} with the caches as they ship", distance, bound)
    return {
        "mean_abs_difference": rounded(distance),
        "mean_of_rounding": rounded(rounding),
        "bound": rounded(bound),
        "at": module,
    }


def _compared(
    ids: NDArray[np.int64], found: Floats, reference: Floats, unrounded: Floats
) -> NDArray[np.float64]:
    """Of each position of one row ``[5, seq]``: the divergence of ``found``, that of the rounding noise,
    whether both choose the same, how far torch's choice is ahead, and how much less likely the next token is.
    """
    parts: list[NDArray[np.float64]] = []
    for piece in _pieces(found, reference, unrounded):
        ours, theirs, exact = map(log_softmax, piece)
        runner_up, best = np.partition(theirs, -2, axis=-1)[:, -2:].T
        at = sum(part.shape[1] for part in parts)
        following = np.append(ids[1:], 0)[at : at + len(ours)]
        likelier = (theirs - ours)[np.arange(len(ours)), following]
        noise = divergence(exact, theirs)
        same = ours.argmax(-1) == theirs.argmax(-1)
        parts.append(np.stack([divergence(theirs, ours), noise, same, best - runner_up, likelier]))
    whole = np.concatenate(parts, axis=1)
    whole[-1, -1] = np.nan  # nothing follows the last
    return np.asarray(whole, np.float64)


def _pieces(*logits: Floats) -> Iterator[tuple[Floats, ...]]:
    """Some positions of each of ``logits [seq, vocab]`` at a time: vocabularies are large."""
    for at in range(0, len(logits[0]), _AT_ONCE):
        yield tuple(one[at : at + _AT_ONCE] for one in logits)


def log_softmax(logits: Floats) -> LogProbs:
    """Natural log-probabilities over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(reference: LogProbs, other: LogProbs) -> LogProbs:
    """KL divergence of ``other`` from ``reference`` at each position, in nats."""
    return np.asarray((np.exp(reference) * (reference - other)).sum(-1))
