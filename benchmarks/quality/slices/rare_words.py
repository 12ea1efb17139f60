"""Rare words: tokens by how often their word occurs in the language, on the Zipf scale of ``wordfreq`` (Speer
2022, built from eight kinds of text): 3 is once in a million words, 6 once in a thousand.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ....errors import require
from ....runtime.text.tokenizer import Tokenizer
from ..subgroups.items import Kind
from ..token_damage import TokenDamage

title = "frequency of the word"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "tokens"
tested = True

LANGUAGE = "en"
ENDS = (
    (2, "below 1 in 10 million"),
    (3, "to 1 in a million"),
    (4, "to 1 in 100,000"),
    (5, "to 1 in 10,000"),
    (6, "to 1 in 1,000"),
)
MOST = "more than 1 in 1,000"
NO_WORD = "no word"


def bands(tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]:
    """The band of the word that each token begins or goes on with; digits and signs are ``no word``."""
    require("wordfreq", "slices")
    pieces = [tokenizer.decode([token]) for token in tokens.ids.tolist()]
    word_of: list[int] = []
    words: list[str] = []
    for piece in pieces:
        if not words or not piece[:1].isalpha() or piece[:1].isspace():
            words.append("")
        words[-1] += piece
        word_of.append(len(words) - 1)
    return [_band(words[index].strip().strip(".,;:!?\"'()[]").lower()) for index in word_of[1:]]


@lru_cache(maxsize=100_000)
def _band(word: str) -> str:
    from wordfreq import zipf_frequency

    if not any(sign.isalpha() for sign in word):
        return NO_WORD
    frequency: float = zipf_frequency(word, LANGUAGE)
    return next((name for end, name in ENDS if frequency < end), MOST)
