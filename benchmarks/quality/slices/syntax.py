"""Syntax: minimal pairs by phenomenon; a model finds the sentence likelier that is English, or it does not.

The method is that of Warstadt et al., "BLiMP: The Benchmark of Linguistic Minimal Pairs for English"
(arXiv:1912.00582, 2020); the templates and words are our own.
"""

import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from ....files.yaml_safe import load_yaml
from ..subgroups.items import Choice, Kind

title = "phenomenon"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "choices"
tested = True

PAIRS = 50  # of each phenomenon
_TRIES = 50


def choices(seed: int) -> Sequence[Choice]:
    """:data:`PAIRS` different pairs of each phenomenon."""
    data = load_yaml((files(__package__) / "syntax.yaml").read_text(encoding="utf-8"), source="syntax.yaml")
    found: list[Choice] = []
    for phenomenon in data["phenomena"]:
        draw = random.Random(f"{seed} {phenomenon['name']}")
        pairs: dict[tuple[str, str], None] = {}
        for attempt in range(PAIRS * _TRIES):
            if len(pairs) == PAIRS:
                break
            good, bad = phenomenon["pairs"][attempt % len(phenomenon["pairs"])]
            words = _drawn(draw, phenomenon["words"], data["lexicon"])
            pairs[good.format(**words), bad.format(**words)] = None
        found += [
            Choice(phenomenon["name"], *pair, right=True, content=f"{phenomenon['name']} {number}")
            for number, pair in enumerate(pairs)
        ]
    return found


def _drawn(
    draw: random.Random, words: Mapping[str, str], lexicon: Mapping[str, Any]
) -> dict[str, Sequence[str]]:
    """A word for every letter, none of them twice."""
    found: dict[str, Sequence[str]] = {}
    for letter, name in words.items():
        free = [word for word in lexicon[name] if word not in found.values()]
        found[letter] = draw.choice(free)
    return found
