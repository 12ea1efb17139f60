"""Token ids in a model's settings: which it cannot do without, and what they become in another vocabulary.

``config.json``, ``generation_config.json`` and ``tokenizer_config.json`` name tokens by id: what an answer
begins and ends with, what is never written, and of a Whisper its languages and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_ENDS_ONE = "_token_id"  # one id, or several
_ENDS_NEVER = "suppress_tokens"  # a list of ids that are never written
_NAMED = ("lang_to_id", "task_to_id")  # tables from names to ids
_PLACES = "forced_decoder_ids"  # pairs of a place in an answer and its id, or null

New = Mapping[int, int]


def named_ids(settings: Mapping[str, Any]) -> Iterator[int]:
    """The ids in ``settings`` that the model cannot do without."""
    for key, value in settings.items():
        found: list[Any] = []
        if key.endswith(_ENDS_ONE):
            found = value if isinstance(value, list) else [value]
        elif key in _NAMED and isinstance(value, dict):
            found = [*value.values()]
        elif key == _PLACES and isinstance(value, list):
            found = [pair[-1] for pair in value if isinstance(pair, list) and pair]
        yield from (one for one in found if type(one) is int)


def renumbered(settings: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The entries of ``settings`` that hold ids, in a vocabulary of which only ``kept`` are left, each with
    its place there as its id.

    A value that is no token stays as it is. What is never written is left out where it was cut.
    """
    new = {old: index for index, old in enumerate(kept)}
    changed = {}
    for key, value in settings.items():
        change = _CHANGES.get(key)
        if key.endswith(_ENDS_ONE):
            change = _one_or_several
        elif key.endswith(_ENDS_NEVER):
            change = _never
        if change is not None:
            changed[key] = change(value, new)
    return changed


def _one(value: Any, new: New) -> Any:
    return new.get(value, value) if type(value) is int else value


def _one_or_several(value: Any, new: New) -> Any:
    if isinstance(value, list):
        return [new[one] for one in value if type(one) is int and one in new]
    return _one(value, new)


def _never(value: Any, new: New) -> Any:
    return (_one_or_several(value, new) or None) if isinstance(value, list) else value


def _never_in_a_row(value: Any, new: New) -> Any:
    """Of words of several tokens, those that can still be written."""
    if not isinstance(value, list):
        return value
    words = [_one_or_several(word, new) for word in value if isinstance(word, list)]
    whole = [len(word) for word in value if isinstance(word, list)]
    return [word for word, length in zip(words, whole, strict=True) if word and len(word) == length] or None


def _by_name(value: Any, new: New) -> Any:
    return {name: _one(one, new) for name, one in value.items()} if isinstance(value, dict) else value


def _by_place(value: Any, new: New) -> Any:
    if not isinstance(value, list):
        return value
    return [[*pair[:-1], _one(pair[-1], new)] if isinstance(pair, list) and pair else pair for pair in value]


def _by_id(value: Any, new: New) -> Any:
    if not isinstance(value, dict):
        return value
    numbers = {int(old): token for old, token in value.items() if old.isdecimal()}
    return {str(new[old]): token for old, token in numbers.items() if old in new}


_CHANGES: dict[str, Callable[[Any, New], Any]] = {
    **dict.fromkeys(_NAMED, _by_name),
    _PLACES: _by_place,
    "bad_words_ids": _never_in_a_row,
    "added_tokens_decoder": _by_id,
}
