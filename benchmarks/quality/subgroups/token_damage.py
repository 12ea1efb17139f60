"""What each token of a text lost: both models read it once, and every slice takes its sums from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...records.subjects import TokenModel
from ..accuracy import CHUNK, finite_logits, require_same_width
from ..scores import log_softmax

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class TokenDamage:
    """Of the ``n`` tokens that a text predicts, one row each.

    Attributes:
        ids: all tokens of the text ``[n + 1]``; the first is given.
        kl: KL divergence from the original, nats ``[n]``.
        flips: whether another token became the likeliest ``[n]``.
        nats: negative log-likelihood of the token that came, in the compressed model ``[n]``.
        reference_nats: the same in the original.
        confidence: probability of the original's likeliest token ``[n]``.
        entropy: of the original's distribution, nats ``[n]``.
    """

    ids: NDArray[np.int64]
    kl: Numbers
    flips: NDArray[np.bool_]
    nats: Numbers
    reference_nats: Numbers
    confidence: Numbers
    entropy: Numbers


def token_damage(
    subject: TokenModel, original: TokenModel, ids: NDArray[np.int64], number: int = 1
) -> TokenDamage:
    """Run both models on the text ``ids [n + 1]``, the ``number``-th.

    Raises:
        GateFailed: logits that are not finite.
        InputError: vocabularies of different size.
    """
    theirs = finite_logits(original, ids, "the original", number)
    mine = theirs
    if subject is not original:
        mine = finite_logits(subject, ids, "the compressed model", number)
    require_same_width("vocabularies", mine, theirs)
    parts = [
        _of_chunk(mine[start : start + CHUNK], theirs[start : start + CHUNK], ids[1:][start : start + CHUNK])
        for start in range(0, len(ids) - 1, CHUNK)
    ]
    kl, flips, nats, reference, confidence, entropy = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return TokenDamage(ids, kl, flips > 0, nats, reference, confidence, entropy)


def _of_chunk(
    mine: NDArray[np.float32], theirs: NDArray[np.float32], targets: NDArray[np.int64]
) -> tuple[Numbers, ...]:
    reference = log_softmax(theirs)
    log_probs = reference if mine is theirs else log_softmax(mine)
    likely = np.exp(reference)
    place = np.arange(len(targets))
    return (
        np.einsum("tv,tv->t", likely, reference - log_probs).clip(min=0.0),
        (reference.argmax(axis=1) != log_probs.argmax(axis=1)).astype(np.float64),
        -log_probs[place, targets],
        -reference[place, targets],
        likely.max(axis=1),
        -np.einsum("tv,tv->t", likely, reference),
    )
