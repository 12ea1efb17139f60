"""From a slice's texts, choices or tokens to what they lost: the runs of both models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....compress.text.token_batch import starts_with_bos
from ....runtime.text.tokenizer import Tokenizer
from ....terminal import ProgressTask
from ...records.subjects import OpenModel
from ..accuracy import text_bytes
from .group_harm import Items
from .items import Choice, GroupText, TokenSlice
from .token_damage import Numbers, TokenDamage, token_damage

# Tokens of a text that are read: enough of an article of the Declaration, and of scripts with many tokens.
MOST_TOKENS = 96


def ids_of(tokenizer: Tokenizer, text: str, most: int) -> NDArray[np.int64]:
    """The ids of ``text``, at most ``most``, after a token that is given: BOS where the tokenizer has one in
    front of a text, else a line break."""
    first = [tokenizer.bos_id] if starts_with_bos(tokenizer) else tokenizer.encode("\n", special=False)[-1:]
    return np.array([*first, *tokenizer.encode(text, special=False)][:most], np.int64)


def decoder_texts(
    subject: OpenModel, original: OpenModel, texts: Sequence[GroupText], task: ProgressTask
) -> Items:
    """KL a byte of every text; beside it KL a token, changed tokens, and the bits a byte that were added."""
    most = min(MOST_TOKENS, subject.max_length, original.max_length)
    kept, rows = [], []
    for number, each in enumerate(texts, 1):
        ids = ids_of(original.tokenizer, each.text, most)
        if len(ids) > 1:
            lost = token_damage(subject, original, ids, number)
            added = (lost.nats - lost.reference_nats).sum() / math.log(2)
            rows.append(
                (lost.kl.sum(), text_bytes(original.tokenizer, ids), len(lost.kl), lost.flips.sum(), added)
            )
            kept.append(each)
        task.advance(1)
    kl, size, tokens, flips, added = np.array(rows, np.float64).reshape(-1, 5).T
    return Items(
        "nats/byte",
        [each.group for each in kept],
        [each.content for each in kept],
        kl,
        size,
        {
            "kl_per_token": np.stack([kl, tokens], axis=1),
            "flips": np.stack([flips, tokens], axis=1),
            "added_bits_per_byte": np.stack([added, size], axis=1),
        },
    )


def encoder_texts(
    subject: OpenModel, original: OpenModel, texts: Sequence[GroupText], task: ProgressTask
) -> Items:
    """One minus the cosine between both embeddings of every text."""
    found = []
    for model in (original, subject):
        embeddings = model.embeddings([each.text for each in texts]).astype(np.float64)
        found.append(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=1e-12))
        task.advance(len(texts) / 2)
    distance = (1 - np.einsum("nd,nd->n", *found)).clip(min=0.0)
    return _each("distance", texts, distance)


def classifier_texts(
    subject: OpenModel, original: OpenModel, texts: Sequence[GroupText], task: ProgressTask
) -> Items:
    """Whether each text gets another label."""
    found = []
    for model in (original, subject):
        found.append(model.label_logits([each.text for each in texts]).argmax(axis=1))
        task.advance(len(texts) / 2)
    return _each("changed", texts, (found[0] != found[1]).astype(np.float64))


def _each(unit: str, texts: Sequence[GroupText], harm: Numbers) -> Items:
    groups, contents = [each.group for each in texts], [each.content for each in texts]
    return Items(unit, groups, contents, harm, np.ones(len(texts)))


def decoder_choices(
    subject: OpenModel, original: OpenModel, choices: Sequence[Choice], task: ProgressTask
) -> Items:
    """Whether the other sentence of each pair became the likelier; beside it what is right, of pairs that
    have that, and which way the changes went."""
    rows = []
    for number, each in enumerate(choices, 1):
        mine, theirs = np.transpose(
            [_nats(subject, original, text, number) for text in (each.first, each.second)]
        )
        first, likelier = bool(theirs[0] < theirs[1]), bool(mine[0] < mine[1])
        rows.append((first != likelier, first, likelier))
        task.advance(1)
    changed, before, after = np.array(rows, np.float64).reshape(-1, 3).T
    one = np.ones(len(choices))
    named = ("right_before", "right_after") if choices[0].right else ("first_before", "first_after")
    extras = {name: np.stack([sums, one], axis=1) for name, sums in zip(named, (before, after), strict=True)}
    groups, contents = [each.group for each in choices], [each.content for each in choices]
    return Items("changed", groups, contents, changed, one, extras)


def _nats(subject: OpenModel, original: OpenModel, text: str, number: int) -> tuple[float, float]:
    lost = token_damage(subject, original, ids_of(original.tokenizer, text, original.max_length), number)
    return float(lost.nats.sum()), float(lost.reference_nats.sum())


def token_bands(file: TokenSlice, windows: Sequence[TokenDamage], tokenizer: Tokenizer) -> Items:
    """KL a token of every band that ``file`` finds in the ``windows``; beside it changed tokens."""
    groups, contents, rows = [], [], []
    for number, window in enumerate(windows):
        bands = np.array(file.bands(window, tokenizer))
        for band in dict.fromkeys(bands.tolist()):
            of = bands == band
            groups.append(str(band))
            contents.append(str(number))
            rows.append((window.kl[of].sum(), of.sum(), window.flips[of].sum()))
    kl, tokens, flips = np.array(rows, np.float64).reshape(-1, 3).T
    return Items("nats/token", groups, contents, kl, tokens, {"flips": np.stack([flips, tokens], axis=1)})
