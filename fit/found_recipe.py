"""A choice as a plain recipe, which ``compress -r`` repeats: the scheme of every linear, of embedding and
head, and how the codes are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from .candidates import Space
from .methods import Method


def recipe_of(
    space: Space, options: Sequence[int], method: Method, calibration: dict[str, Any]
) -> dict[str, Any]:
    """The recipe for one option of every unit; ``calibration`` is that section of it.

    Raises:
        InputError: the choice leaves every linear in float.
    """
    chosen = space.chosen(options)
    plan = {
        name: option.scheme.name
        for unit, option in chosen
        if not unit.is_table and option.scheme is not None
        for name in unit.modules
    }
    if not plan:
        raise InputError(
            "these budgets leave nothing to compress: every linear may stay in float32",
            fix="export the model as it is, or set a smaller budget",
        )
    tables = [
        None if option.scheme is None else option.scheme.name for unit, option in chosen if unit.is_table
    ]
    return {
        "name": "fit",
        "passes": method.passes(plan, tied=len(tables) == 1, length=calibration["length"]),
        "embedding": tables[0],
        **({"head": tables[1]} if len(tables) > 1 else {}),
        "calibration": calibration,
    }
