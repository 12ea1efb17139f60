"""How sure the original was: by the probability of its likeliest token. Most answers change where it was not
sure, in every compressed model; this says how many, and is no alarm.
"""

from collections.abc import Sequence
from typing import Final

from ....runtime.text.tokenizer import Tokenizer
from ..subgroups.items import Kind
from ..token_damage import TokenDamage

title = "confidence of the original"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "tokens"
tested = False

ENDS = (0.25, 0.5, 0.75, 0.9)


def bands(tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]:
    """``below 25 %``, ``25 to 50 %``, …"""
    return [_band(float(sure)) for sure in tokens.confidence]


def _band(sure: float) -> str:
    start = 0.0
    for end in ENDS:
        if sure < end:
            return f"{start:.0%} to {end:.0%}" if start else f"below {end:.0%}"
        start = end
    return f"{start:.0%} and more"
