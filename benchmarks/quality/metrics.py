"""The metrics of quality, a row each: :data:`METRICS` by the name that a record has.

What a row computes of each item depends on what it is measured on:

- ``tokens``: of float64 log-probabilities ``[t, vocab]`` of the subject and of the original, and the token
  ids ``[t]`` that came, a number per token ``[t]``;
- ``greedy``: of the token ids of greedy replies, and their nats a token in the original ``[n]`` or None, a
  number each ``[n]``, or None where it needs those;
- ``answers``: of texts of the subject and of the original a number each ``[n]``;
- ``sentences``: of two arrays of embeddings ``[n, hidden]`` a number each ``[n]``;
- ``passages``: of the embeddings of first and second halves, of the subject and of the original, ``[n]``;
- ``classes``: of embeddings and the classes of their texts, from 0, a number for each text that is tried;
- ``pairs``: of the embeddings ``[n, hidden]`` of the first and second words ``[n]``;
- ``labels``: of log-probabilities ``[n, labels]`` of a classifier and of the original, and the known labels
  ``[n]`` or None, ``[n]``, or None where it needs the known ones.

``value`` makes the metric of ``rows [..., n, k]``, ``[...]``, many sets at once: they are resampled whole
for its interval. A row is a window's ``(sum, tokens, bytes)``, a sentence's or a text's ``(number,)``, or a
pair's ``(number, rating)``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...runtime.text.greedy_loops import ends_in_loop

Rows = NDArray[np.float64]
Halves = tuple[NDArray[Any], NDArray[Any]]  # embeddings of first and of second halves of passages
MeasuredOn = Literal["tokens", "greedy", "sentences", "passages", "classes", "pairs", "labels", "answers"]
RUN = 4  # tokens of a run that repeats
NEIGHBOURS = 10
# Of embeddings of length 1: small beside what some dozen texts of a class add up to.
RIDGE = 0.1


def mean(rows: NDArray[Any]) -> Rows:
    """Mean of the first column."""
    return np.asarray(rows[..., 0].mean(axis=-1))


def quotient(rows: NDArray[Any], column: int = 1) -> Rows:
    """Sum of the first column over that of another."""
    return np.asarray(rows[..., 0].sum(axis=-1) / rows[..., column].sum(axis=-1))


@dataclass(frozen=True)
class MetricRow:
    """A metric: its unit, which direction is better, what it is measured on, a number of each item and
    their summary.
    """

    unit: str
    better: Literal["lower", "higher"]
    measured_on: MeasuredOn
    each: Callable[..., Any]
    value: Callable[[Rows], Rows] = mean


def negative_log_likelihood(log_probs: Rows, reference: Rows, targets: NDArray[Any]) -> Rows:
    """Negative log-likelihood of each target in nats, ``[t]``."""
    picked: Rows = log_probs[np.arange(len(targets)), targets]
    return -picked


def _bits(log_probs: Rows, reference: Rows, targets: NDArray[Any]) -> Rows:
    return negative_log_likelihood(log_probs, reference, targets) / math.log(2)


def kl_divergence(log_probs: Rows, reference: Rows, targets: NDArray[Any] | None) -> Rows:
    """``Σ p·(log p − log q)`` per row with p the original's distribution, ``[t]``; never negative."""
    if log_probs is reference:
        return np.zeros(len(reference))
    nats: Rows = np.einsum("tv,tv->t", np.exp(reference), reference - log_probs)
    # Rounding can leave a sum of about −1e-16 where the two are equal.
    return nats.clip(min=0.0)


def same_choice(log_probs: Rows, reference: Rows, targets: NDArray[Any] | None) -> Rows:
    """1 where the likeliest are the same, else 0, ``[t]``; of equals the first counts."""
    return np.asarray(log_probs.argmax(axis=1) == reference.argmax(axis=1), dtype=np.float64)


def _right_label(log_probs: Rows, reference: Rows, targets: NDArray[Any] | None) -> Rows | None:
    return None if targets is None else np.asarray(log_probs.argmax(axis=1) == targets, dtype=np.float64)


def distinct(ids: Sequence[int], length: int) -> float:
    """The fraction of the runs of ``length`` tokens in ``ids`` that differ from all before; 1 without any."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def _of_each_reply(measure: Callable[[Sequence[int]], float]) -> Callable[..., Rows]:
    def each(replies: Sequence[Sequence[int]], nats: Rows | None) -> Rows:
        return np.array([measure(ids) for ids in replies], np.float64)

    return each


def _same_answers(answers: Sequence[str], originals: Sequence[str]) -> Rows:
    return np.array([one == other for one, other in zip(answers, originals, strict=True)], np.float64)


def unit_rows(embeddings: NDArray[Any]) -> Rows:
    """``embeddings [n, hidden]`` with rows of length 1; a row of zeros stays one."""
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return units


def cosines(embeddings: NDArray[Any], reference: NDArray[Any]) -> Rows:
    """Cosine of each row of ``embeddings [n, hidden]`` with that of ``reference``; 0 where one is zero."""
    left, right = np.asarray(embeddings, np.float64), np.asarray(reference, np.float64)
    product = np.einsum("nh,nh->n", left, right)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: Rows = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return found.clip(-1.0, 1.0)


def neighbour_overlap(mine: Halves, theirs: Halves) -> Rows:
    """The fraction of shared neighbours of each second half among the others."""
    pairs = zip(_nearest(mine[1]), _nearest(theirs[1]), strict=True)
    return np.array([len(np.intersect1d(ours, own)) / len(own) for ours, own in pairs])


def _nearest(embeddings: NDArray[Any]) -> NDArray[np.int64]:
    """``[n, 10]`` places of the nearest others of each row, or of all others when there are fewer."""
    rows = unit_rows(embeddings)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, len(rows) - 1)
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


def rank_of_target(queries: NDArray[Any], targets: NDArray[Any]) -> Rows:
    """From 1, the place of target ``i`` for query ``i`` by cosine, both embeddings ``[n, hidden]``; equally
    near ones come before it.
    """
    similar = unit_rows(queries) @ unit_rows(targets).T
    ranks: Rows = (similar >= np.diagonal(similar)[:, None]).sum(axis=1).astype(np.float64)
    return ranks


def _found_first(mine: Halves, theirs: Halves) -> Rows:
    found: Rows = (rank_of_target(*mine) == 1).astype(np.float64)
    return found


def _reciprocal_rank(mine: Halves, theirs: Halves) -> Rows:
    return 1.0 / rank_of_target(*mine)


def _probed(embeddings: NDArray[Any], classes: NDArray[np.int64]) -> Rows:
    """1 for each text with an odd place that is put into its class by what the even ones taught."""
    rows = np.concatenate([unit_rows(embeddings), np.ones((len(embeddings), 1))], axis=1)
    learned, tried = rows[::2], rows[1::2]
    targets = np.eye(int(classes.max()) + 1)[classes[::2]]
    gram = learned.T @ learned + RIDGE * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, learned.T @ targets)
    right: Rows = ((tried @ weights).argmax(axis=1) == classes[1::2]).astype(np.float64)
    return right


def _perplexity(rows: Rows) -> Rows:
    found: Rows = np.exp(quotient(rows))
    return found


def rank_correlation(rows: Rows) -> Rows:
    """Correlation of the ranks of ``rows [..., pairs, (similarity, rating)]``; 0 if one side is constant."""
    sets = rows.reshape(-1, *rows.shape[-2:])
    return np.array([_of_ranks(ranks(one[:, 0]), ranks(one[:, 1])) for one in sets]).reshape(rows.shape[:-2])


def _of_ranks(left: Rows, right: Rows) -> float:
    left, right = left - left.mean(), right - right.mean()
    scale = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / scale) if scale > 0 else 0.0


def ranks(values: Rows) -> Rows:
    """Ranks from 1, ties at the mean of the ranks they take up."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


METRICS = {
    # Jelinek, Mercer, Bahl, Baker, "Perplexity—a measure of the difficulty of speech recognition tasks",
    # 1977: comparable only between models with one tokenizer; bits per byte go across.
    "perplexity": MetricRow("", "lower", "tokens", negative_log_likelihood, _perplexity),
    "bits_per_byte": MetricRow("bits/byte", "lower", "tokens", _bits, lambda rows: quotient(rows, 2)),
    # Kullback and Leibler, "On Information and Sufficiency", 1951: of the whole distribution, so that it
    # resolves damage that perplexity, which sees one token, averages away.
    "kl": MetricRow("nats/token", "lower", "tokens", kl_divergence, quotient),
    "top1_agreement": MetricRow("share", "higher", "tokens", same_choice, quotient),
    # seq-rep-4 of Welleck et al., "Neural Text Generation With Unlikelihood Training", 2020, arXiv
    # 1908.04319.
    "repetition": MetricRow("share", "lower", "greedy", _of_each_reply(lambda ids: 1 - distinct(ids, RUN))),
    # Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016, arXiv
    # 1510.03055; of each text alone, and the mean.
    "distinct_2": MetricRow("share", "higher", "greedy", _of_each_reply(lambda ids: distinct(ids, 2))),
    # How many greedy texts end in the same few words over and over.
    "loops": MetricRow("share", "lower", "greedy", _of_each_reply(ends_in_loop)),
    # How the original would have said the replies. A model that has lost its text without a loop says what
    # its original never would: this is large then. A loop that has begun is likely to go on, and keeps it
    # small.
    "reply_nats": MetricRow("nats/token", "lower", "greedy", lambda replies, nats: nats),
    # One token that changes can change all that follow, so that this falls sooner than top-1 agreement
    # does.
    "same_replies": MetricRow("share", "higher", "answers", _same_answers),
    "cosine": MetricRow("", "higher", "sentences", cosines),
    # Of a passage's ten nearest for the original those that are so for the subject: an index changes by the
    # rest.
    "neighbour_overlap": MetricRow("", "higher", "passages", neighbour_overlap),
    # How often the second half of a passage is the nearest to its first half. Each model searches among its
    # own embeddings, as an index of it would.
    "retrieval_at_1": MetricRow("", "higher", "passages", _found_first),
    # Voorhees, "The TREC-8 Question Answering Track Report", 1999.
    "reciprocal_rank": MetricRow("", "higher", "passages", _reciprocal_rank),
    # Ridge regression onto classes, fitted on one half of the texts and tried on the other: what a user who
    # trains on the embeddings would keep (Alain and Bengio, "Understanding intermediate layers using linear
    # classifier probes", arXiv 1610.01644, 2016).
    "probe_accuracy": MetricRow("", "higher", "classes", _probed),
    # Spearman, "The Proof and Measurement of Association between Two Things", 1904: of the similarity of
    # two words' embeddings and people's ratings.
    "spearman": MetricRow("", "higher", "pairs", cosines, rank_correlation),
    "label_accuracy": MetricRow("share", "higher", "labels", _right_label),
    "label_agreement": MetricRow("share", "higher", "labels", same_choice),
    "label_kl": MetricRow("nats/text", "lower", "labels", kl_divergence),
}


def metrics_of(measured_on: MeasuredOn) -> dict[str, MetricRow]:
    """The metrics of one kind by name, in the order of names."""
    return {name: row for name, row in sorted(METRICS.items()) if row.measured_on == measured_on}
