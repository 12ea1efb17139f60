"""JSON as dataclasses, checked: every field has its exact type and a sane size, or the document is refused.

A start of a few hundred milliseconds cannot afford a validation library of a hundred (measured in
``benchmarks/lab/results/startup.md``), and what a device reads is small. A check takes a value and the key it
was found at, and returns the value or raises :class:`Unusable`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

Check = Callable[[Any, str], Any]
Kind = TypeVar("Kind")


class Unusable(ValueError):
    """A value that does not fit; says which ``key`` and why."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key or 'the document'}: {why}")


def read(kind: type[Kind], value: Any, where: str = "") -> Kind:
    """An object as the dataclass ``kind``: each field is ``Annotated`` with its check, and ``__post_init__``
    may raise ValueError. Unknown keys are left alone.
    """
    if not isinstance(value, dict):
        raise Unusable(where, "is not an object")
    found: dict[str, Any] = {}
    for name, (check, needed) in _parts(kind).items():  # type: ignore[arg-type]
        below = f"{where}.{name}" if where else name
        if name in value:
            found[name] = check(value[name], below)
        elif needed:
            raise Unusable(below, "is missing")
    try:
        return kind(**found)
    except ValueError as error:
        raise Unusable(where, str(error)) from None


@cache
def _parts(kind: Any) -> dict[str, tuple[Check, bool]]:
    """The check of each field, and whether the field has no default."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        part.name: (
            hints[part.name].__metadata__[0],
            part.default is MISSING and part.default_factory is MISSING,
        )
        for part in fields(kind)
    }


def document(raw: bytes) -> Any:
    """The JSON in ``raw``."""
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unusable("", f"is not JSON: {str(error)[:200]}") from None


def integer(low: int, high: int) -> Check:
    """A whole number from ``low`` to ``high``; 1.0 and true are none."""

    def check(value: Any, key: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unusable(key, f"must be a whole number from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``, whole or not."""

    def check(value: Any, key: str) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Unusable(key, f"must be a number from {low:g} to {high:g}")
        return float(value)

    return check


def text(pattern: str = "") -> Check:
    """Text of valid Unicode, that matches ``pattern`` from end to end where there is one."""

    def check(value: Any, key: str) -> str:
        if not isinstance(value, str) or (not value.isascii() and _has_surrogates(value)):
            raise Unusable(key, "must be text")
        if pattern and not re.fullmatch(pattern, value):
            raise Unusable(key, f"must match {pattern}")
        return value

    return check


def _has_surrogates(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def flag(value: Any, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Unusable(key, "must be true or false")
    return value


def choice(*known: str) -> Check:
    """One of ``known``."""

    def check(value: Any, key: str) -> str:
        if not isinstance(value, str) or value not in known:
            raise Unusable(key, f"must be one of: {', '.join(known)}")
        return value

    return check


def optional(check: Check) -> Check:
    """null, or what passes ``check``."""
    return lambda value, key: None if value is None else check(value, key)


def section(kind: type[Any]) -> Check:
    """An object, as the dataclass ``kind``."""
    return lambda value, key: read(kind, value, key)


def items(check: Check, *, at_least: int = 0, at_most: int) -> Check:
    """A list of ``at_least`` to ``at_most`` values that pass ``check``."""

    def check_all(value: Any, key: str) -> Sequence[Any]:
        if not isinstance(value, list) or not at_least <= len(value) <= at_most:
            raise Unusable(key, f"must be a list of {at_least} to {at_most} values")
        return [check(item, f"{key}.{index}") for index, item in enumerate(value)]

    return check_all


def by_name(name: Check, check: Check) -> Check:
    """An object whose keys pass ``name`` and whose values pass ``check``."""

    def check_all(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Unusable(key, "is not an object")
        return {name(inner, key): check(item, f"{key}.{inner}") for inner, item in value.items()}

    return check_all
