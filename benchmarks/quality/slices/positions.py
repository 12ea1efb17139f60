"""Position in the context: how far from its beginning a token stands, so from how much text it is
predicted."""

from collections.abc import Sequence
from typing import Final

from ....runtime.text.tokenizer import Tokenizer
from ..subgroups.items import Kind
from ..token_damage import TokenDamage

title = "tokens before"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "tokens"
tested = True

ENDS = (16, 64, 256, 1024)


def bands(tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]:
    """``below 16``, ``16 to 63``, …"""
    return [_band(place) for place in range(1, len(tokens.ids))]


def _band(before: int) -> str:
    start = 0
    for end in ENDS:
        if before < end:
            return f"{start} to {end - 1}" if start else f"below {end}"
        start = end
    return f"{start} and more"
