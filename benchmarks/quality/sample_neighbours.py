"""What an encoder or a classifier does with a few built-in sentences, beside its original, to be read: the
nearest neighbours of each, or its label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..records.conditions import clip
from ..records.record import SampleAnswer
from ..records.subjects import OpenModel
from .scores import log_softmax

NEAREST = 3
_LONGEST_LABEL = 80

ASKED = (
    "How do I get rid of a coffee stain on a white shirt?",
    "The service was slow, but the food made up for it.",
    "Interest rates rose again this spring.",
)
# Three or more on each of the three subjects, near in meaning or only in words, and others.
SENTENCES = (
    "Rub some baking soda and water into the cloth, then wash it cold.",
    "He spilled his drink over the letter.",
    "White shirts go well with a dark suit.",
    "The best coffee comes from the mountains of Ethiopia.",
    "Wine marks come out of a tablecloth with salt.",
    "Iron linen while it is still damp.",
    "We waited an hour for our table, yet dinner was delicious.",
    "The waiter was friendly and quick.",
    "The soup was cold and too salty.",
    "The bus service ends at midnight.",
    "I would order the fish there any time.",
    "Slow cooking makes tough meat tender.",
    "The central bank made borrowing more expensive in April.",
    "Mortgages cost more than they did a year ago.",
    "Spring flowers bloom in the park.",
    "Her interest in birds began in school.",
    "Prices of bread and milk went up.",
    "The river rose after days of rain.",
    "Our team won the match in the last minute.",
    "The train to the coast leaves at nine.",
    "She learned to play the violin as a child.",
    "A new vaccine protects against malaria.",
    "The telescope found water on a distant planet.",
    "My phone loses its charge by noon.",
)


def nearest_sentences(subject: OpenModel, original: OpenModel) -> list[SampleAnswer]:
    """Of each sentence that is asked, the nearest of the others, with their cosine."""
    mine, theirs = _neighbours(subject), _neighbours(original)
    return _answers(mine, theirs)


def sample_labels(subject: OpenModel, original: OpenModel) -> list[SampleAnswer]:
    """The likeliest label of each sentence, with its probability."""
    return _answers(_labels(subject), _labels(original))


def _answers(mine: list[str], theirs: list[str]) -> list[SampleAnswer]:
    return [
        SampleAnswer(prompt=asked, original=before, compressed=after)
        for asked, before, after in zip(ASKED, theirs, mine, strict=True)
    ]


def _neighbours(model: OpenModel) -> list[str]:
    asked, others = _directions(model, ASKED), _directions(model, SENTENCES)
    cosines = asked @ others.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    return [
        "\n".join(f"{row[place]:.2f} {SENTENCES[place]}" for place in places)
        for row, places in zip(cosines, nearest, strict=True)
    ]


def _directions(model: OpenModel, texts: tuple[str, ...]) -> NDArray[np.float64]:
    vectors = model.embeddings(texts).astype(np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _labels(model: OpenModel) -> list[str]:
    rows = np.exp(log_softmax(model.label_logits(ASKED)))
    return [f"{row.max():.2f} {clip(model.labels[row.argmax()], _LONGEST_LABEL)}" for row in rows]
