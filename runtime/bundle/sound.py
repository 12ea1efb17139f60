"""``Sound``: what a model hears, as a manifest has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from .typed_json import Unusable, by_name, integer, text

_ID = integer(0, 2**31 - 1)


def _word(value: Any, key: str) -> str:
    found = str(text()(value, key))
    if not found.isprintable() or not 0 < len(found) <= 40:
        raise Unusable(key, "must be a short word")
    return found


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Sounds of ``samples`` numbers from -1 to 1, ``rate`` a second; shorter ones have silence behind them.

    Attributes:
        languages, tasks: by their names the tokens that ask for them, which stand in front of an answer.
    """

    rate: Annotated[int, integer(1, 1 << 20)]
    samples: Annotated[int, integer(1, 1 << 26)]
    languages: Annotated[dict[str, int], by_name(_word, _ID)] = field(default_factory=dict)
    tasks: Annotated[dict[str, int], by_name(_word, _ID)] = field(default_factory=dict)
