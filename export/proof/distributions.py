"""A graph's next-token distributions beside torch's: KL divergence, top-1 agreement, perplexity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import CLEAR_AGREEMENT, KL_MEAN, clear_margin, gate, noise_bound, rounded

Floats = NDArray[np.float32]
LogProbs = NDArray[np.float64]


def compare(
    found: Floats,
    reference: Floats,
    unrounded: Floats,
    ids: NDArray[np.int64],
    rounded_inputs: Callable[[], Floats],
) -> dict[str, Any]:
    """How far ``found`` lies from ``reference``, both logits ``[batch, seq, vocab]`` for ``ids [batch,
    seq]``.

    ``unrounded`` are torch's logits without any rounding beyond that of the linears' weights: their distance
    from the reference is the size of the rounding noise. Where that does not explain the distance,
    ``rounded_inputs`` is called: torch's logits with the inputs of every quantized linear in 8 bits, as the
    kernels have them.

    Raises:
        GateFailed: farther than rounding explains.
    """
    divergences, noise, agreements, leads, surprises = [], [], [], [], []
    for row in range(len(ids)):  # a row at a time: vocabularies are large
        ours, theirs = log_softmax(found[row]), log_softmax(reference[row])
        divergences.append(divergence(theirs, ours))
        noise.append(divergence(log_softmax(unrounded[row]), theirs))
        agreements.append(ours.argmax(-1) == theirs.argmax(-1))
        runner_up, best = np.partition(theirs, -2, axis=-1)[:, -2:].T
        leads.append(best - runner_up)
        following = (np.arange(ids.shape[1] - 1), ids[row, 1:])
        surprises.append(theirs[:-1][following] - ours[:-1][following])
    kl, rounding = float(np.mean(divergences)), float(np.mean(noise))
    if kl > noise_bound(KL_MEAN, rounding):
        pairs = zip(reference, rounded_inputs(), strict=True)
        extra = [divergence(log_softmax(plain), log_softmax(eight)) for plain, eight in pairs]
        rounding = max(rounding, float(np.mean(extra)))
    agreed, clear = np.concatenate(agreements), np.concatenate(leads) >= clear_margin(rounding)
    clearly, bound = float(agreed[clear].mean()) if clear.any() else 1.0, noise_bound(KL_MEAN, rounding)
    gate("the mean KL divergence of the quantized graph from torch", kl, bound)
    gate("its agreement where torch's choice is clear", clearly, CLEAR_AGREEMENT, at_least=True)
    return {
        "kl_mean": rounded(kl),
        "kl_of_rounding": rounded(rounding),
        "top1_agreement": rounded(float(agreed.mean())),
        "top1_agreement_where_clear": rounded(clearly),
        "perplexity_ratio": rounded(float(np.exp(np.mean(surprises)))),
        "positions": int(ids.size),
        "clear_positions": int(clear.sum()),
        "bounds": {"kl_mean": rounded(bound), "top1_agreement_where_clear": CLEAR_AGREEMENT},
    }


def log_softmax(logits: Floats) -> LogProbs:
    """Natural log-probabilities over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(reference: LogProbs, other: LogProbs) -> LogProbs:
    """KL divergence of ``other`` from ``reference`` at each position, in nats."""
    return np.asarray((np.exp(reference) * (reference - other)).sum(-1))
