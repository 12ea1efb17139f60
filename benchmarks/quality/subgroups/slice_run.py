"""``SliceRun``: both models on the items of a slice, whatever it is made of.

Effect sizes of associations before and after a compression, and whether it made them stronger.

Of a text ``w`` the association is ``s(w) = mean cos(w, a) - mean cos(w, b)`` over both attributes; the
effect size of a test is the difference of the means of ``s`` over both targets, in standard deviations of
``s`` (Caliskan et al. 2017). A word is the unit: of its sentences the mean counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ....terminal.progress import Progress, ProgressTask
from ...records.subjects import OpenModel
from ...records.summary import RESAMPLES
from ..token_damage import Numbers, TokenDamage
from .group_harm import GroupHarm, Items, harms
from .items import (
    Association,
    Choice,
    ChoiceSlice,
    GroupText,
    Kind,
    RowSlice,
    SliceFile,
    TextSlice,
    TokenSlice,
)
from .kept_rows import KeptRows
from .measured_items import (
    Run,
    classifier_texts,
    decoder_choices,
    decoder_texts,
    encoder_texts,
    token_bands,
    unit_embeddings,
    written_texts,
)

Item = TypeVar("Item", GroupText, Choice)
_TEXTS = {"decoder": decoder_texts, "encoder": encoder_texts, "classifier": classifier_texts}
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Given:
    """What slices are taken from: what the tokens of a decoder's windows of the measured text lost, and the
    rows of a text that have a group. ``every``: of texts that groups share, articles say, one in so many.
    ``half``: of what items share, articles or sentences, only those at even (0) or odd (1) places.
    ``written``: of an encoder–decoder those rows, each with what the tokens lost that are written of it."""

    tokens: Sequence[TokenDamage] = ()
    rows: Sequence[GroupText] = ()
    seed: int = 0
    every: int = 1
    half: int | None = None
    written: Sequence[tuple[GroupText, TokenDamage]] = ()


@dataclass(frozen=True)
class SliceRun:
    """Both models, where what is measured is kept and shown, and the ``choices`` of all slices that have
    some."""

    subject: OpenModel
    original: OpenModel
    kept: KeptRows
    progress: Progress
    choices: list[Items] = field(default_factory=list)

    def harms(self, name: str, file: SliceFile, kind: Kind, given: Given) -> tuple[str, list[GroupHarm]]:
        """What each group of the slice ``name`` loses of a model of ``kind``, and the unit of that."""
        if kind not in file.kinds:
            raise InputError(f"this slice is not for a model of kind {kind!r}", fix="leave it out")
        if file.of == "associations":
            tests = file.associations()
            with self.progress.task("comparing associations", len(tests)) as task:
                found = association_harms(self.subject, self.original, tests, given.seed, task)
            return "effect", found
        items = self.items(name, file, kind, given)
        return items.unit, harms(items, given.seed)

    def items(
        self, name: str, file: TextSlice | ChoiceSlice | TokenSlice | RowSlice, kind: Kind, given: Given
    ) -> Items:
        """What both models made of the texts, choices or tokens of the slice ``name``."""
        if file.of == "tokens":
            if not given.tokens:
                raise InputError("this slice needs windows of text, read by both models in the same tokens")
            return token_bands(file, given.tokens, self.original.tokenizer)
        if file.of == "choices":
            choices = _part(file.choices(given.seed), 1, given.half)
            with self.progress.task(f"comparing sentences by {file.title}", len(choices)) as task:
                self.choices.append(decoder_choices(self._run(name, choices, task), choices))
            return self.choices[-1]
        if file.of == "rows" and given.written:
            return written_texts(given.written, self.original.tokenizer)
        texts = file.texts(given.seed) if file.of == "texts" else given.rows
        if not texts:
            raise InputError(
                "no row of the text has a group", fix='give --text a .jsonl file whose rows have a "group"'
            )
        texts = _part(texts, given.every if file.of == "texts" else 1, given.half)
        with self.progress.task(f"reading texts by {file.title}", len(texts)) as task:
            return _TEXTS[kind](self._run(name, texts, task), texts)

    def _run(self, name: str, items: Sequence[object], task: ProgressTask) -> Run:
        return Run(self.subject, self.original, self.kept.of(name, items), task)


def _part(items: Sequence[Item], every: int, half: int | None) -> Sequence[Item]:
    """The items of one content in ``every``, and of these of one ``half``."""
    chosen = list(dict.fromkeys(one.content for one in items))[::every]
    kept = set(chosen if half is None else chosen[half::2])
    return [one for one in items if one.content in kept]


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
