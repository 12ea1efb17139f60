"""A classifier's graph beside torch: how far the distributions of the labels are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import KL_MEAN, gate, noise_bound, rounded
from .distributions import divergence, log_softmax

Floats = NDArray[np.float32]


def compare_labels(found: Floats, reference: Floats, unrounded: Floats) -> dict[str, Any]:
    """How far ``found`` lies from ``reference``, both logits ``[texts, labels]``; ``unrounded`` are torch's
    without rounding beyond that of the weights.

    Raises:
        GateFailed: farther than rounding explains.
    """
    ours, theirs, exact = (log_softmax(logits) for logits in (found, reference, unrounded))
    kl, rounding = float(np.mean(divergence(theirs, ours))), float(np.mean(divergence(exact, theirs)))
    bound = noise_bound(KL_MEAN, rounding)
    gate("the mean KL divergence of the quantized graph's labels from torch's", kl, bound)
    return {
        "label_kl_mean": rounded(kl),
        "label_kl_of_rounding": rounded(rounding),
        "label_agreement": rounded(float((ours.argmax(-1) == theirs.argmax(-1)).mean())),
        "bounds": {"label_kl_mean": rounded(bound)},
    }
