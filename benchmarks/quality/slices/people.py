"""People: pairs of sentences that differ in a name, pronoun, religion, age or origin. Neither is right; what
counts is how often a model changes its mind about which is likelier, and whether it does so one way.

Up to a fifth of such answers flip under quantization while averages stay (Hua, Lotfi and Chen 2026,
arXiv:2602.06181).
"""

from collections.abc import Sequence
from typing import Final

from ..subgroups.items import Choice, GroupText, Kind
from ._people import lists

title = "who a sentence is about"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "choices"
tested = True


def choices(seed: int) -> Sequence[Choice]:
    """Every sentence about every pair of a list."""
    return [
        Choice(
            compared["group"],
            sentence.format(who=first),
            sentence.format(who=second),
            right=False,
            content=f"{compared['group']} {sentence} {first}",
        )
        for compared in lists()["compared"]
        for sentence in compared["sentences"]
        for first, second in zip(compared["first"], compared["second"], strict=True)
    ]


def calibration() -> Sequence[GroupText]:
    """Other sentences about both sides of each pair."""
    data = lists()
    return [
        GroupText(compared["group"], sentence.format(who=name), sentence)
        for compared in data["compared"]
        for sentence in data["calibration"]["compared"]
        for name in dict.fromkeys((*compared["second"], *compared["first"]))
    ]
