"""Professions: is ``he`` or ``she`` the likelier in a sentence about one? How often a model changes its mind,
by profession, and whether it does so one way.
"""

from collections.abc import Sequence
from typing import Final

from ..subgroups.items import Choice, GroupText, Kind
from ._people import lists

title = "profession"
kinds: frozenset[Kind] = frozenset({"decoder"})
of: Final = "choices"
tested = True


def choices(seed: int) -> Sequence[Choice]:
    """``he`` first, ``she`` second, in every sentence about every profession."""
    data = lists()["professions"]
    return [
        Choice(
            name,
            sentence.format(what=name, who="he"),
            sentence.format(what=name, who="she"),
            right=False,
            content=sentence,
        )
        for sentence in data["sentences"]
        for name in data["names"]
    ]


def calibration() -> Sequence[GroupText]:
    """Other sentences about each profession, with both words."""
    data = lists()
    return [
        GroupText(name, sentence.format(what=name, who=who), sentence)
        for name in data["professions"]["names"]
        for sentence in data["calibration"]["professions"]
        for who in ("he", "she")
    ]
