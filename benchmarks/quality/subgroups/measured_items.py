"""From a slice's texts, choices or tokens to what they lost: the runs of both models."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ....compress.text.token_batch import starts_with_bos
from ....runtime.text.tokenizer import Tokenizer
from ....terminal.progress import ProgressTask
from ...records.subjects import OpenModel
from ..accuracy import text_bytes
from ..token_damage import AT_ONCE, Ids, Numbers, TokenDamage, token_damage
from .group_harm import Items
from .items import Choice, GroupText, TokenSlice
from .kept_rows import Row, SliceRows

# Tokens of a text that are read: most of an article of the Declaration in English, and of each other script
# as much work.
MOST_TOKENS = 48
TEXTS_AT_ONCE = 32
# Where bands of an original's confidence in its choice between two end.
_SURE = ((0.75, "below 75%"), (0.9, "75% to 90%"), (0.99, "90% to 99%"), (1.0, "99% and more"))
Item = TypeVar("Item")


@dataclass(frozen=True)
class Run:
    """Two models, and where what is measured is kept and shown."""

    subject: OpenModel
    original: OpenModel
    kept: SliceRows
    task: ProgressTask

    def rows(
        self,
        items: Sequence[Item],
        places: Callable[[Item], int],
        measure: Callable[[Sequence[Item], int], Sequence[Row]],
    ) -> Numbers:
        """A row an item ``[n, k]``: those that an earlier run has kept, and those that ``measure`` gives
        for the next items, the second argument being the number of the first, as many as have
        :data:`AT_ONCE` places.
        """
        self.task.advance(min(len(self.kept.rows), len(items)))
        while len(self.kept.rows) < len(items):
            start = end = len(self.kept.rows)
            widest = 0
            while end < len(items):
                widest = max(widest, places(items[end]))
                if end > start and widest * (end + 1 - start) > AT_ONCE:
                    break
                end += 1
            self.kept.add(measure(items[start:end], start + 1))
            self.task.advance(end - start)
        return np.array(self.kept.rows, np.float64)

    def damage(self, texts: Sequence[Ids], number: int) -> list[TokenDamage]:
        """What the tokens of ``texts`` lost."""
        return token_damage(self.subject, self.original, texts, number)


def ids_of(tokenizer: Tokenizer, text: str, most: int) -> Ids:
    """The ids of ``text``, at most ``most``, after a token that is given: BOS where the tokenizer has one in
    front of a text, else a line break."""
    first = [tokenizer.bos_id] if starts_with_bos(tokenizer) else tokenizer.encode("\n", special=False)[-1:]
    return np.array([*first, *tokenizer.encode(text, special=False)][:most], np.int64)


def decoder_texts(run: Run, texts: Sequence[GroupText]) -> Items:
    """KL a byte of every text; beside it KL a token, changed tokens, and the bits a byte that were added."""
    tokenizer = run.original.tokenizer
    most = min(MOST_TOKENS, run.subject.max_length, run.original.max_length)
    given = [(each, ids_of(tokenizer, each.text, most)) for each in texts]
    given = [(each, ids) for each, ids in given if len(ids) > 1]

    def measure(some: Sequence[tuple[GroupText, Ids]], number: int) -> list[Row]:
        return [
            _text_row(lost, text_bytes(tokenizer, lost.ids))
            for lost in run.damage([ids for _, ids in some], number)
        ]

    return _of_texts([each for each, _ in given], run.rows(given, lambda one: len(one[1]), measure))


def written_texts(lost: Sequence[tuple[GroupText, TokenDamage]], tokenizer: Tokenizer) -> Items:
    """The same of what an encoder–decoder writes of each text, whose tokens lost so much."""
    rows = [_text_row(one, text_bytes(tokenizer, one.ids)) for _, one in lost]
    return _of_texts([each for each, _ in lost], np.array(rows, np.float64))


def _of_texts(texts: Sequence[GroupText], rows: Numbers) -> Items:
    kl, size, tokens, flips, added = rows.reshape(-1, 5).T
    return Items(
        "nats/byte",
        [each.group for each in texts],
        [each.content for each in texts],
        kl,
        size,
        {
            "kl_per_token": np.stack([kl, tokens], axis=1),
            "flips": np.stack([flips, tokens], axis=1),
            "added_bits_per_byte": np.stack([added, size], axis=1),
        },
    )


def _text_row(lost: TokenDamage, size: int) -> Row:
    added = float((lost.nats - lost.reference_nats).sum()) / math.log(2)
    return float(lost.kl.sum()), size, len(lost.kl), int(lost.flips.sum()), added


def encoder_texts(run: Run, texts: Sequence[GroupText]) -> Items:
    """One minus the cosine between both embeddings of every text."""

    def measure(some: Sequence[GroupText], _: int) -> list[Row]:
        mine, theirs = (
            unit_embeddings(model, [each.text for each in some]) for model in (run.subject, run.original)
        )
        return [(max(0.0, float(1 - one @ other)),) for one, other in zip(mine, theirs, strict=True)]

    (distance,) = run.rows(texts, _of_encoder, measure).reshape(-1, 1).T
    return _each("distance", texts, distance)


def unit_embeddings(model: OpenModel, texts: Sequence[str]) -> Numbers:
    """Embeddings ``[texts, hidden]`` of length one."""
    found = model.embeddings(texts).astype(np.float64)
    length: Numbers = np.linalg.norm(found, axis=1, keepdims=True).clip(min=1e-12)
    return found / length


def classifier_texts(run: Run, texts: Sequence[GroupText]) -> Items:
    """Whether each text gets another label; beside it accuracy before and after, where the right one is
    known."""

    def measure(some: Sequence[GroupText], _: int) -> list[Row]:
        mine, theirs = (
            model.label_logits([each.text for each in some]).argmax(axis=1).tolist()
            for model in (run.subject, run.original)
        )
        return [(float(own), float(other)) for own, other in zip(mine, theirs, strict=True)]

    mine, theirs = run.rows(texts, _of_encoder, measure).reshape(-1, 2).T
    items = _each("changed", texts, (mine != theirs).astype(np.float64))
    right = np.array([-1 if each.label is None else each.label for each in texts])
    if not (right >= 0).any():
        return items
    known = (right >= 0).astype(np.float64)
    named = {"accuracy_before": theirs, "accuracy_after": mine}
    extras = {name: np.stack([known * (found == right), known], axis=1) for name, found in named.items()}
    return Items(items.unit, items.groups, items.contents, items.harm, items.weight, extras)


def _of_encoder(_: GroupText) -> int:
    return AT_ONCE // TEXTS_AT_ONCE


def _each(unit: str, texts: Sequence[GroupText], harm: Numbers) -> Items:
    groups, contents = [each.group for each in texts], [each.content for each in texts]
    return Items(unit, groups, contents, harm, np.ones(len(texts)))


def decoder_choices(run: Run, choices: Sequence[Choice]) -> Items:
    """Whether the other sentence of each pair became the likelier; beside it KL a token of both, what is
    right, of pairs that have that, and which way the changes went."""
    most = min(run.subject.max_length, run.original.max_length)
    given = [
        tuple(ids_of(run.original.tokenizer, text, most) for text in (each.first, each.second))
        for each in choices
    ]

    def measure(some: Sequence[tuple[Ids, ...]], number: int) -> list[Row]:
        lost = run.damage([ids for pair in some for ids in pair], number)
        return [_choice_row(*pair) for pair in zip(lost[::2], lost[1::2], strict=True)]

    def places(pair: tuple[Ids, ...]) -> int:
        return 2 * max(map(len, pair))

    changed, margin, after, kl, tokens = run.rows(given, places, measure).reshape(-1, 5).T
    before, one = (margin > 0).astype(np.float64), np.ones(len(choices))
    named = ("right_before", "right_after") if choices[0].right else ("first_before", "first_after")
    extras = {name: np.stack([sums, one], axis=1) for name, sums in zip(named, (before, after), strict=True)}
    extras["kl_per_token"] = np.stack([kl, tokens], axis=1)
    groups, contents = [each.group for each in choices], [each.content for each in choices]
    return Items("changed", groups, contents, changed, one, extras, confidence=_sure(margin))


def _sure(margin: Numbers) -> Numbers:
    """How sure a model is of its choice between two sentences, one of which is ``margin`` nats likelier."""
    sure: Numbers = 1 / (1 + np.exp(-np.abs(margin)))
    return sure


def by_confidence(chosen: Sequence[Items]) -> Items:
    """All of the choices in groups by how sure the original was of each. Its entropy, between two answers,
    follows from that."""
    sure = np.concatenate([one.confidence for one in chosen])
    groups = [
        _SURE[int(place)][1] for place in np.searchsorted([end for end, _ in _SURE[:-1]], sure, "right")
    ]
    order = np.argsort(sure, kind="stable")
    contents = [f"{number} {name}" for number, one in enumerate(chosen) for name in one.contents]
    harm, weight = (np.concatenate([getattr(one, name) for one in chosen]) for name in ("harm", "weight"))
    return Items(
        "changed",
        [groups[place] for place in order],
        [contents[place] for place in order],
        harm[order],
        weight[order],
    )


def _choice_row(first: TokenDamage, second: TokenDamage) -> Row:
    margin = float(second.reference_nats.sum()) - float(first.reference_nats.sum())
    after = float(first.nats.sum()) < float(second.nats.sum())
    kl = float(first.kl.sum() + second.kl.sum())
    return (margin > 0) != after, margin, after, kl, len(first.kl) + len(second.kl)


def token_bands(file: TokenSlice, windows: Sequence[TokenDamage], tokenizer: Tokenizer) -> Items:
    """KL a token of every band that ``file`` finds in the ``windows``; beside it changed tokens."""
    groups, contents, rows = [], [], []
    for number, window in enumerate(windows):
        bands = np.array(file.bands(window, tokenizer))
        for band in dict.fromkeys(bands.tolist()):
            of: NDArray[np.bool_] = bands == band
            groups.append(str(band))
            contents.append(str(number))
            rows.append((window.kl[of].sum(), of.sum(), window.flips[of].sum()))
    kl, tokens, flips = np.array(rows, np.float64).reshape(-1, 3).T
    return Items("nats/token", groups, contents, kl, tokens, {"flips": np.stack([flips, tokens], axis=1)})
