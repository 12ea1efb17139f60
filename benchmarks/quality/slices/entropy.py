"""How open the text was: by the entropy of the original's distribution, in nats. As with confidence, this
says where answers change, and is no alarm.
"""

from collections.abc import Sequence
from typing import Final

from ....runtime.text.tokenizer import Tokenizer
from ..subgroups.items import Kind
from ..token_damage import TokenDamage

title = "entropy of the original"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "tokens"
tested = False

ENDS = (1, 2, 3, 4)


def bands(tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]:
    """``below 1 nat``, ``1 to 2 nats``, …"""
    return [_band(float(nats)) for nats in tokens.entropy]


def _band(nats: float) -> str:
    start = 0
    for end in ENDS:
        if nats < end:
            return f"{start} to {end} nats" if start else f"below {end} nat"
        start = end
    return f"{start} nats and more"
