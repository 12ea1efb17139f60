"""A decoder with a cut vocabulary beside its original: they split a text differently, so that only what
counts by the bytes of the text compares.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import GateFailed
from ...terminal import Progress, Silent
from ..records.subjects import Subject
from .accuracy import CHUNK, Ids, text_bytes
from .log_softmax import log_softmax
from .scores import Scores, metric_files


def is_cut(subject: Subject, original: Subject) -> bool:
    """Whether the subject's tokens are some of the original's, and not all of them."""
    return subject.tokenizer.tokens < original.tokenizer.tokens


def score_across(
    subject: Subject, original: Subject, windows: Ids, *, progress: Progress | None = None
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


def _row(model: Subject, ids: Ids) -> tuple[float, int, int]:
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
