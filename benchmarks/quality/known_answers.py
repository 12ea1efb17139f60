"""Answers of an original that are computed once: rows of numbers, and replies. What the cache holds in their
place is looked at before it is taken for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine.greedy_replies import REPLIES_AT_ONCE
from ..records.answer_cache import AnswerCache, arithmetic_of

Numbers = NDArray[np.float32]
Replies = list[list[int]]
REPLIES = "replies"


class Computing(Protocol):
    """A model that is open: the hash of all that its answers are made of, and what runs it."""

    runtime: dict[str, Any]

    @property
    def content_sha256(self) -> str: ...


def cache_of(model: Computing) -> AnswerCache:
    """That of ``model``; it keeps nothing on a GPU, which may sum in another order each time."""
    here = model.runtime.get("device", "cpu") == "cpu"
    return AnswerCache(arithmetic_of(model.content_sha256, model.runtime) if here else None)


def known_rows(
    cache: AnswerCache, what: str, asked: Any, count: int, compute: Callable[[], Numbers]
) -> Numbers:
    """So many rows of numbers, as the answer to what is ``asked``."""
    found = (cache.read(what, asked) or {}).get("rows")
    if is_finite(found) and found.ndim > 1 and len(found) == count:
        cache.use(what)
        return found
    rows = compute()
    cache.write(what, asked, {"rows": rows})
    return rows


def known_replies(
    cache: AnswerCache, asked: Any, count: int, limits: tuple[int, int], write: Callable[[], Replies]
) -> Replies:
    """So many replies; ``limits`` are the tokens of one, and above which no id is."""
    question = [asked, *limits, REPLIES_AT_ONCE]
    known = _ragged(cache.read(REPLIES, question) or {}, count, *limits)
    if known is not None:
        cache.use(REPLIES)
        return known
    replies = write()
    if replies:
        lengths = np.array([len(reply) for reply in replies], np.int64)
        ids = np.array([token for reply in replies for token in reply], np.int64)
        cache.write(REPLIES, question, {"ids": ids, "lengths": lengths})
    return replies


def _ragged(found: dict[str, NDArray[Any]], count: int, new_tokens: int, vocabulary: int) -> Replies | None:
    """So many replies, where the arrays hold such."""
    ids, lengths = found.get("ids"), found.get("lengths")
    if ids is None or lengths is None or ids.dtype != np.int64 or lengths.dtype != np.int64:
        return None
    fits = ids.ndim == 1 and lengths.shape == (count,) and lengths.sum() == len(ids) > 0
    if not fits or lengths.min() < 1 or lengths.max() > new_tokens:
        return None
    if ids.min() < 0 or ids.max() >= vocabulary:
        return None
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def is_finite(rows: NDArray[Any] | None) -> TypeGuard[Numbers]:
    """Whether they are numbers in float32, all of them finite."""
    return rows is not None and rows.dtype == np.float32 and bool(np.isfinite(rows).all())
