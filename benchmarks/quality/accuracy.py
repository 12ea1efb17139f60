"""How far a model is from its original on the same input: windows, or texts with labels.

One pass: a window goes through both models, is reduced to a few sums, and its logits are dropped, so that
memory is bounded by one window of each. The first token of a window has no prediction; a window of
``length`` tokens (with its BOS, for a tokenizer that puts one in front) gives ``length − 1``. Windows are
independent of each other. Models that split a text differently are compared by bits per byte alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GateFailed
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress, Silent
from ..records.subjects import OpenModel, TokenModel
from .metrics import METRICS, metrics_of, negative_log_likelihood
from .scores import Scores, log_softmax
from .token_damage import Chunk, Ids, TokenDamage, both_logits, chunks, finite_logits, joined, lost


def score_windows(
    subject: TokenModel,
    original: TokenModel,
    windows: Ids,
    *,
    damage: list[TokenDamage] | None = None,
    progress: Progress | None = None,
    first: int = 1,
) -> dict[str, Scores]:
    """Every token metric over ``windows [n, length]``; ``subject`` may be ``original`` itself. What each
    token lost is added to ``damage``, where that is asked for. In messages windows are counted from
    ``first``.
    """
    metrics = metrics_of("tokens")
    mine_rows: dict[str, list[tuple[float, int, int]]] = {name: [] for name in metrics}
    their_rows: dict[str, list[tuple[float, int, int]]] = {name: [] for name in metrics}
    with (progress or Silent()).task("validating", len(windows)) as task:
        for number, window in enumerate(windows, first):
            (logits,) = both_logits(subject, original, [window], number)
            size, rows = text_bytes(original.tokenizer, window), []
            sums = {name: np.zeros(2) for name in metrics}
            for chunk in chunks(*logits, window[1:]):
                for name, metric in metrics.items():
                    sums[name] += _chunk_sums(metric, chunk)
                if damage is not None:
                    rows.append(lost(chunk))
            if damage is not None:
                damage.append(joined(window, rows))
            for name, (ours, own) in sums.items():
                mine_rows[name].append((float(ours), len(window) - 1, size))
                their_rows[name].append((float(own), len(window) - 1, size))
            task.advance(1)
    return {
        name: Scores(metric, np.array(mine_rows[name], np.float64), np.array(their_rows[name], np.float64))
        for name, metric in metrics.items()
    }


def _chunk_sums(metric: Any, chunk: Chunk) -> tuple[float, float]:
    """The sum over a chunk's tokens of a metric, of the subject and of the original."""
    log_probs, reference, targets = chunk
    ours = metric.each(log_probs, reference, targets).sum()
    return float(ours), float(metric.each(reference, reference, targets).sum())


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
    """
    with (progress or Silent()).task("validating", 2) as task:
        theirs = _log_probs(original, texts, "the original")
        task.advance(1)
        mine = theirs if subject is original else _log_probs(subject, texts, "the compressed model")
        task.advance(1)
    scores: dict[str, Scores] = {}
    for name, metric in metrics_of("labels").items():
        ours, own = (metric.each(rows.values, theirs.values, targets) for rows in (mine, theirs))
        if ours is not None:
            scores[name] = Scores(metric, mine.of_texts(ours)[:, None], theirs.of_texts(own)[:, None])
    return scores


# The log-probability of a choice that a row has not, beside longer ones.
_NEVER = -1e9


@dataclass(frozen=True)
class _Rows:
    """Log-probabilities ``[rows, choices]``, of which each text has ``counts [texts]``."""

    values: NDArray[np.float64]
    counts: list[int]

    def of_texts(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of the ``rows`` of each text: those of one are too alike to count as so many."""
        if all(count == 1 for count in self.counts):
            return rows
        return np.array([part.mean() for part in np.split(rows, np.cumsum(self.counts)[:-1])])


def _log_probs(model: OpenModel, texts: Sequence[str], whose: str) -> _Rows:
    logits = model.label_logits(texts)
    require_finite(whose, logits, "texts logits")
    counts = [1] * len(texts)
    if model.label_form.by_token:
        counts = [len(ids) for ids in model.tokenizer.encode_batch(texts, max_length=model.max_length)]
    parts = [one.reshape(-1, one.shape[-1]) for one in np.split(logits, np.cumsum(counts)[:-1])]
    rows = [log_softmax(model.label_form.rows(part)) for part in parts]
    longest = max(part.shape[1] for part in rows)
    padded = [np.pad(part, ((0, 0), (0, longest - part.shape[1])), constant_values=_NEVER) for part in rows]
    return _Rows(np.concatenate(padded), [len(part) for part in rows])


def score_across(
    subject: OpenModel, original: OpenModel, windows: Ids, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Bits per byte on the text of ``windows [n, length]`` (ids of the original), each model in its own
    tokens.
    """
    mine, theirs = [], []
    with (progress or Silent()).task("validating", len(windows)) as task:
        for number, window in enumerate(windows, 1):
            text = original.tokenizer.decode(window.tolist())
            own = subject.tokenizer.encode(text)[: subject.max_length]
            mine.append(text_bits(subject, np.asarray(own, np.int64), "the compressed model", number))
            theirs.append(text_bits(original, window, "the original", number))
            task.advance(1)
    metric = METRICS["bits_per_byte"]
    return {"bits_per_byte": Scores(metric, np.array(mine, np.float64), np.array(theirs, np.float64))}


def text_bits(model: TokenModel, ids: Ids, whose: str, number: int) -> tuple[float, int, int]:
    """Bits of all tokens but the first, how many they are, and the bytes of their text."""
    (logits,) = finite_logits(model, [ids], whose, number)
    parts = [negative_log_likelihood(*chunk).sum() / math.log(2) for chunk in chunks(logits, logits, ids[1:])]
    return float(sum(parts)), len(ids) - 1, text_bytes(model.tokenizer, ids)
