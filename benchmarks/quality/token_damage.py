"""What each token of a text lost: both models read it once, and metrics and slices take their sums from
that."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import GateFailed, InputError
from ..records.subjects import TokenModel
from .metrics import kl_divergence, negative_log_likelihood, same_choice
from .scores import log_softmax

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]
Logits = NDArray[np.float32]

# Positions turned to log-probabilities at a time: 4 × 50,000 float64 are 1.6 MB, which stay in a processor's
# cache; 64 take four times as long.
CHUNK = 4
# Positions of short texts that go through a model side by side: as many as a window has.
AT_ONCE = 512


class Chunk(NamedTuple):
    """Log-probabilities ``[t, vocab]`` of the compressed model and of the original, and the ids ``[t]`` that
    came. They are one array where a model is compared with itself.
    """

    log_probs: Numbers
    reference: Numbers
    targets: Ids


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

    ids: Ids
    kl: Numbers
    flips: NDArray[np.bool_]
    nats: Numbers
    reference_nats: Numbers
    confidence: Numbers
    entropy: Numbers


def both_logits(
    subject: TokenModel, original: TokenModel, texts: Sequence[Ids], number: int = 1
) -> list[tuple[Logits, Logits]]:
    """Logits ``[n - 1, vocab]`` of both models that predict all of each text ``[n]`` but its first token; the
    texts, the ``number``-th and the next ones, run side by side. Of one model both are the same array.
    """
    theirs = finite_logits(original, texts, "the original", number)
    mine = theirs
    if subject is not original:
        mine = finite_logits(subject, texts, "the compressed model", number)
    require_same_width("vocabularies", mine[0], theirs[0])
    return list(zip(mine, theirs, strict=True))


def require_same_width(what: str, mine: Logits, theirs: Logits) -> None:
    if mine.shape != theirs.shape:
        raise InputError(
            f"the {what} differ in size: {mine.shape[-1]} against {theirs.shape[-1]} in the original",
            fix="compare with the model that it was made from",
        )


def finite_logits(model: TokenModel, texts: Sequence[Ids], whose: str, number: int) -> list[Logits]:
    """As :func:`both_logits`, of one ``model``, which messages call ``whose``."""
    # Padding on the right changes nothing before it: attention is causal.
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    found = [logits[: len(text) - 1] for logits, text in zip(model.logits(ids), texts, strict=True)]
    for place, logits in enumerate(found, number):
        if not np.isfinite(logits).all():
            raise GateFailed(
                f"{whose} gives logits that are not finite in window {place}",
                why=f"{int((~np.isfinite(logits)).sum())} of {logits.size} are NaN or infinite",
                fix="the weights or activations overflow: inspect the layers with `edgepress inspect`",
            )
    return found


def chunks(mine: Logits, theirs: Logits, targets: Ids) -> Iterator[Chunk]:
    """The log-probabilities of logits ``[n, vocab]`` for ``targets [n]``, a few positions at a time."""
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        reference = log_softmax(theirs[part])
        log_probs = reference if mine is theirs else log_softmax(mine[part])
        yield Chunk(log_probs, reference, targets[part])


def token_damage(
    subject: TokenModel, original: TokenModel, texts: Sequence[Ids], number: int = 1
) -> list[TokenDamage]:
    """Run both models on ``texts``, each ``[n + 1]``; raises what :func:`both_logits` does."""
    return [
        joined(ids, map(lost, chunks(*logits, ids[1:])))
        for ids, logits in zip(texts, both_logits(subject, original, texts, number), strict=True)
    ]


def lost(chunk: Chunk) -> tuple[Numbers, ...]:
    """The rows of :class:`TokenDamage` for the positions of a chunk."""
    likely = np.exp(chunk.reference)
    return (
        kl_divergence(*chunk),
        1 - same_choice(*chunk),
        negative_log_likelihood(*chunk),
        negative_log_likelihood(chunk.reference, chunk.reference, chunk.targets),
        likely.max(axis=1),
        -np.einsum("tv,tv->t", likely, chunk.reference),
    )


def joined(ids: Ids, rows: Iterable[tuple[Numbers, ...]]) -> TokenDamage:
    """What :func:`lost` gave for all chunks of the text ``ids``."""
    divergence, flips, nats, reference, confidence, entropy = map(np.concatenate, zip(*rows, strict=True))
    return TokenDamage(ids, divergence, flips > 0, nats, reference, confidence, entropy)
