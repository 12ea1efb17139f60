"""What each token of a text lost: both models read it once, and every slice takes its sums from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...records.subjects import TokenModel
from ..accuracy import read_together
from ..metrics import kl, perplexity, top1_agreement

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
    parts = [_of_chunk(*read) for read in read_together(subject, original, ids, number)]
    nats, same, own, reference, confidence, entropy = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return TokenDamage(ids, nats, same == 0, own, reference, confidence, entropy)


def _of_chunk(log_probs: Numbers, reference: Numbers, targets: NDArray[np.int64]) -> tuple[Numbers, ...]:
    likely = np.exp(reference)
    return (
        kl.per_token(log_probs, reference, targets),
        top1_agreement.per_token(log_probs, reference, targets),
        perplexity.per_token(log_probs, reference, targets),
        perplexity.per_token(reference, reference, targets),
        likely.max(axis=1),
        -np.einsum("tv,tv->t", likely, reference),
    )
