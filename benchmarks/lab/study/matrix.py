"""Rows written once for many values: ``for: {bits: [4, 3]}`` makes a row of each, with ``{bits}`` filled in.

An axis is a list, or a mapping whose keys stand in names and whose values stand where a text is nothing but
``{axis}``. ``{is: "{axis}", more: …}`` is the mapping of that value with more keys; a list in a list of
passes is joined to it. Several axes make every combination. What the study's ``named`` holds is filled in as
the one value of an axis.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from ....errors import InputError

_WHOLE = re.compile(r"^\{([\w-]+)\}$")
_PART = re.compile(r"\{([\w-]+)\}")

# By axis: what it is called in a text, and its value.
Point = Mapping[str, tuple[str, Any]]


def expanded(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The study ``data`` with the rows of every table written out."""
    tables, named = [], {name: (name, value) for name, value in (data.pop("named", None) or {}).items()}
    for table in data.get("tables") or []:
        if not isinstance(table, Mapping) or not isinstance(table.get("rows"), list):
            raise InputError(f"study {where}: a table is a mapping with a list of rows")
        tables.append({**table, "rows": [one for row in table["rows"] for one in _rows(row, where, named)]})
    return {**data, "tables": tables}


def _rows(row: Any, where: str, named: Point) -> list[Any]:
    if not isinstance(row, Mapping):
        return [row]
    axes = filled(row.get("for", {}), named)
    if not isinstance(axes, Mapping) or not all(isinstance(axis, list | Mapping) for axis in axes.values()):
        raise InputError(f"study {where}: 'for' is a mapping of axes, each a list or a mapping")
    template = {key: value for key, value in row.items() if key != "for"}
    values = [_values(axis) for axis in axes.values()]
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*values))
    return [filled(template, {**named, **point}) for point in points]


def _values(axis: list[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(axis.items()) if isinstance(axis, Mapping) else [(f"{value}", value) for value in axis]


def filled(value: Any, point: Point) -> Any:
    """``value`` with every ``{axis}`` of ``point`` filled in; other braces stay."""
    if isinstance(value, str):
        whole = _WHOLE.match(value)
        if whole and whole[1] in point:
            return filled(point[whole[1]][1], point)
        return _PART.sub(lambda found: point[found[1]][0] if found[1] in point else found[0], value)
    if isinstance(value, Mapping):
        found = {key: filled(entry, point) for key, entry in value.items()}
        return _merged(found.pop("is"), found) if isinstance(found.get("is"), Mapping) else found
    if isinstance(value, list):
        joined: list[Any] = []
        for entry in value:
            made = filled(entry, point)
            # A list that stood as one text is joined; one that was written as a list stays one.
            joined += made if isinstance(made, list) and isinstance(entry, str) else [made]
        return joined
    return value


def _merged(first: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """``first`` with the keys of ``more``; mappings that both have are merged."""
    found = dict(first)
    for key, value in more.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = _merged(found[key], value) if both else value
    return found
