"""Effect sizes of associations before and after a compression, and whether it made them stronger.

Of a text ``w`` the association is ``s(w) = mean cos(w, a) - mean cos(w, b)`` over both attributes; the
effect size of a test is the difference of the means of ``s`` over both targets, in standard deviations of
``s`` (Caliskan et al. 2017). A word is the unit: of its sentences the mean counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....terminal.progress import ProgressTask
from ...records.subjects import OpenModel
from ...records.summary import RESAMPLES
from ..token_damage import Numbers
from .group_harm import GroupHarm
from .items import Association
from .measured_items import unit_embeddings

PERMUTATIONS = 9999


def association_harms(
    subject: OpenModel, original: OpenModel, tests: Sequence[Association], seed: int, task: ProgressTask
) -> list[GroupHarm]:
    """Of each of ``tests`` how much farther its effect size is from zero than in the original."""
    found = []
    for test in tests:
        before, after = (_scores(model, test) for model in (original, subject))
        found.append(_harm(test, before, after, seed))
        task.advance(1)
    return found


def _scores(model: OpenModel, test: Association) -> Numbers:
    """``s`` of the words of both targets ``[n]``, in standard deviations."""
    first, second, attribute, other = (
        _word_embeddings(model, words)
        for words in (test.first, test.second, test.attribute, test.other_attribute)
    )
    targets = np.concatenate([first, second])
    each: Numbers = (targets @ attribute.T).mean(axis=1) - (targets @ other.T).mean(axis=1)
    spread = float(each.std(ddof=1))
    return each / (spread or 1.0)


def _word_embeddings(model: OpenModel, words: Sequence[Sequence[str]]) -> Numbers:
    """A row of length one for each word: the mean of its sentences."""
    rows = unit_embeddings(model, [text for texts in words for text in texts])
    means: Numbers = rows.reshape(len(words), -1, rows.shape[1]).mean(axis=1)
    length: Numbers = np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)
    return means / length


def _harm(test: Association, before: Numbers, after: Numbers, seed: int) -> GroupHarm:
    first = np.arange(len(before)) < len(test.first)
    effects = [_difference(scores, first) for scores in (before, after)]
    change = (after - before) * (1.0 if effects[0] >= 0 else -1.0)
    p, error = _permuted(change, first, seed)
    return GroupHarm(
        group=test.group,
        items=len(before),
        harm=_difference(change, first),
        ci95=_interval(change, first, seed),
        others=float("nan"),
        error=error,
        p=p,
        extras={"effect_before": effects[0], "effect_after": effects[1]},
    )


def _difference(scores: Numbers, first: NDArray[np.bool_]) -> float:
    return float(scores[first].mean() - scores[~first].mean())


def _permuted(scores: Numbers, first: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """One-sided p of a permutation test of which words are of which target, and the spread of what it
    gives."""
    found = _difference(scores, first)
    masks = np.random.default_rng(seed).permuted(np.tile(first, (PERMUTATIONS, 1)), axis=1)
    drawn = masks @ scores / first.sum() - ~masks @ scores / (~first).sum()
    return float((1 + (drawn >= found - 1e-12).sum()) / (1 + PERMUTATIONS)), float(drawn.std())


def _interval(scores: Numbers, first: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """The central 95 % over words drawn again, within each target."""
    generator = np.random.default_rng(seed)
    means = [
        generator.choice(part, size=(RESAMPLES, len(part))).mean(axis=1)
        for part in (scores[first], scores[~first])
    ]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return float(low), float(high)
