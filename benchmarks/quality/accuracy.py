"""How far a model is from its original on the same input: windows, or texts with labels.

One pass: a window goes through both models, is reduced to a few sums, and its logits are dropped, so that
memory is bounded by one window of each. The first token of a window has no prediction; a window of
``length`` tokens (with its BOS, for a tokenizer that puts one in front) gives ``length − 1``. Windows are
independent of each other. Models that split a text differently are compared by bits per byte alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GateFailed, InputError
from ...runtime.text.tokenizer import Tokenizer
from ...terminal import Progress, Silent
from ..records.subjects import OpenModel, TokenModel
from .scores import Scores, log_softmax, metric_files

Ids = NDArray[np.int64]
LogProbs = NDArray[np.float64]

# Positions turned to log-probabilities at a time: 64 × 50,000 float64 are 25 MB.
CHUNK = 64


def score_windows(
    subject: TokenModel, original: TokenModel, windows: Ids, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Every token metric over ``windows [n, length]``; ``subject`` may be ``original`` itself.

    Raises:
        GateFailed: logits that are not finite; says whose and in which window.
        InputError: the two models have vocabularies of different size.
    """
    metrics = metric_files("tokens")
    mine_rows: dict[str, list[tuple[float, int, int]]] = {name: [] for name in metrics}
    their_rows: dict[str, list[tuple[float, int, int]]] = {name: [] for name in metrics}
    with (progress or Silent()).task("validating", len(windows)) as task:
        for number, window in enumerate(windows, 1):
            size = text_bytes(original.tokenizer, window)
            sums = _window_sums(metrics, read_together(subject, original, window, number))
            for name, (ours, own) in sums.items():
                mine_rows[name].append((ours, len(window) - 1, size))
                their_rows[name].append((own, len(window) - 1, size))
            task.advance(1)
    return {
        name: Scores(metric, np.array(mine_rows[name], np.float64), np.array(their_rows[name], np.float64))
        for name, metric in metrics.items()
    }


def require_same_width(what: str, mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    if mine.shape != theirs.shape:
        raise InputError(
            f"the {what} differ in size: {mine.shape[-1]} against {theirs.shape[-1]} in the original",
            fix="compare with the model that it was made from",
        )


def read_together(
    subject: TokenModel, original: TokenModel, window: Ids, number: int
) -> Iterator[tuple[LogProbs, LogProbs, Ids]]:
    """What both models say of ``window [n]``, the ``number``-th, a chunk of positions at a time: the
    subject's log-probabilities ``[t, vocab]``, the original's, and the tokens that came ``[t]``.

    Raises:
        GateFailed: logits that are not finite.
        InputError: vocabularies of different size.
    """
    theirs = _finite_logits(original, window, "the original", number)
    mine = theirs
    if subject is not original:
        mine = _finite_logits(subject, window, "the compressed model", number)
    require_same_width("vocabularies", mine, theirs)
    for start in range(0, len(theirs), CHUNK):
        part = slice(start, start + CHUNK)
        reference = log_softmax(theirs[part])
        yield reference if mine is theirs else log_softmax(mine[part]), reference, window[1:][part]


def _finite_logits(model: TokenModel, window: Ids, whose: str, number: int) -> NDArray[np.float32]:
    """Logits ``[n - 1, vocab]`` that predict all of ``window [n]``, the ``number``-th, but its first token.

    Raises:
        GateFailed: they are not finite.
    """
    logits = model.logits(window[None])[0, :-1]
    if not np.isfinite(logits).all():
        raise GateFailed(
            f"{whose} gives logits that are not finite in window {number}",
            why=f"{int((~np.isfinite(logits)).sum())} of {logits.size} are NaN or infinite",
            fix="the weights or activations overflow: inspect the layers with `edgepress inspect`",
        )
    return logits


def _window_sums(
    metrics: Mapping[str, Any], read: Iterable[tuple[LogProbs, LogProbs, Ids]]
) -> dict[str, tuple[float, float]]:
    """Sum over the window's tokens of each metric, of the subject and of the original."""
    sums = dict.fromkeys(metrics, (0.0, 0.0))
    for log_probs, reference, targets in read:
        for name, metric in metrics.items():
            ours = metric.per_token(log_probs, reference, targets).sum()
            own = metric.per_token(reference, reference, targets).sum()
            sums[name] = (sums[name][0] + float(ours), sums[name][1] + float(own))
    return sums


def text_bytes(tokenizer: Tokenizer, window: Ids) -> int:
    """UTF-8 bytes of the text that a window predicts: all of it but the first token."""
    whole, first = tokenizer.decode(window.tolist()), tokenizer.decode(window[:1].tolist())
    return max(1, len(whole.encode()) - len(first.encode()))


def require_finite(whose: str, rows: NDArray[np.float32], what: str) -> None:
    bad = int((~np.isfinite(rows)).any(axis=1).sum())
    if bad:
        raise GateFailed(f"{whose} gives {bad} of {len(rows)} {what} that are not finite")


def score_labels(
    subject: OpenModel,
    original: OpenModel,
    texts: Sequence[str],
    targets: NDArray[np.int64] | None,
    *,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Every metric of labels over ``texts``, whose known labels are ``targets``; ``subject`` may be
    ``original`` itself.

    Raises:
        GateFailed: logits that are not finite.
    """
    with (progress or Silent()).task("validating", 2) as task:
        theirs = _log_probs(original, texts, "the original")
        task.advance(1)
        mine = theirs if subject is original else _log_probs(subject, texts, "the compressed model")
        task.advance(1)
    scores: dict[str, Scores] = {}
    for name, metric in metric_files("labels").items():
        ours, own = (metric.per_text(rows, theirs, targets) for rows in (mine, theirs))
        if ours is not None:
            scores[name] = Scores(metric, ours[:, None], own[:, None])
    return scores


def _log_probs(model: OpenModel, texts: Sequence[str], whose: str) -> NDArray[np.float64]:
    logits = model.label_logits(texts)
    require_finite(whose, logits, "texts logits")
    return log_softmax(logits)


def is_cut(subject: OpenModel, original: OpenModel) -> bool:
    """Whether the subject's tokens are some of the original's, and not all of them."""
    return subject.tokenizer.tokens < original.tokenizer.tokens


def score_across(
    subject: OpenModel, original: OpenModel, windows: Ids, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Bits per byte on the text of ``windows [n, length]`` (ids of the original), each model in its own
    tokens.

    Raises:
        GateFailed: logits that are not finite.
    """
    mine, theirs = [], []
    with (progress or Silent()).task("validating", len(windows)) as task:
        for window in windows:
            text = original.tokenizer.decode(window.tolist())
            own = subject.tokenizer.encode(text)[: subject.max_length]
            mine.append(_row(subject, np.asarray(own, np.int64)))
            theirs.append(_row(original, window))
            task.advance(1)
    metric = metric_files("tokens")["bits_per_byte"]
    return {"bits_per_byte": Scores(metric, np.array(mine, np.float64), np.array(theirs, np.float64))}


def _row(model: OpenModel, ids: Ids) -> tuple[float, int, int]:
    """Bits of all tokens but the first, how many they are, and the bytes of their text."""
    logits, targets = model.logits(ids[None])[0, :-1], ids[1:]
    if not np.isfinite(logits).all():
        raise GateFailed(
            "a model gives logits that are not finite", fix="inspect the layers: edgepress inspect"
        )
    bits = 0.0
    for start in range(0, len(targets), CHUNK):
        log_probs = log_softmax(logits[start : start + CHUNK])
        chosen = np.take_along_axis(log_probs, targets[start : start + CHUNK, None], axis=1)
        bits -= float(chosen.sum()) / math.log(2)
    return bits, len(targets), text_bytes(model.tokenizer, ids)
