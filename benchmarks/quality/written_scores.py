"""Every metric of tokens on what decoders write of something that their encoders read, sounds or texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ...terminal.progress import Progress, Silent
from ..records.subjects import TokenModel
from .accuracy import score_windows, text_bits
from .scores import Scores, metric_files
from .token_damage import Ids, TokenDamage


class Written(NamedTuple):
    """Both models with what they have read, one object where they are one, and the tokens ``[n + 1]`` that
    are written of it, of which the first is given."""

    subject: TokenModel
    original: TokenModel
    tokens: Ids


class Across(NamedTuple):
    """As :class:`Written`, of models that split the text into other tokens: each with its own."""

    subject: TokenModel
    tokens: Ids
    original: TokenModel
    original_tokens: Ids


def score_written(
    written: Iterable[Written],
    count: int,
    *,
    damage: list[TokenDamage] | None = None,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Every token metric over so many ``written``, a row each; otherwise as :func:`.accuracy.score_windows`,
    and raises as that does."""
    parts: list[dict[str, Scores]] = []
    with (progress or Silent()).task("validating", count) as task:
        for number, one in enumerate(written, 1):
            window = one.tokens[None]
            parts.append(score_windows(one.subject, one.original, window, damage=damage, first=number))
            task.advance(1)
    return {
        name: Scores(
            first.metric,
            np.concatenate([part[name].subject for part in parts]),
            np.concatenate([part[name].original for part in parts]),
        )
        for name, first in parts[0].items()
    }


def score_written_across(
    written: Iterable[Across], count: int, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Bits per byte of so many ``written``, each model in its own tokens."""
    mine, theirs = [], []
    with (progress or Silent()).task("validating", count) as task:
        for number, one in enumerate(written, 1):
            mine.append(text_bits(one.subject, one.tokens, "the compressed model", number))
            theirs.append(text_bits(one.original, one.original_tokens, "the original", number))
            task.advance(1)
    metric = metric_files("tokens")["bits_per_byte"]
    return {"bits_per_byte": Scores(metric, np.array(mine, np.float64), np.array(theirs, np.float64))}
