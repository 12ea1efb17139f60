"""How far a classifier is from its original: the distributions of labels over the same texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import GateFailed
from ...terminal import Progress, Silent
from ..records.subjects import OpenModel
from .scores import Scores, log_softmax, metric_files


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
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise GateFailed(f"{whose} gives {bad} of {len(texts)} texts logits that are not finite")
    return log_softmax(logits)
