"""A choice as a plain recipe, which ``compress -r`` repeats: the scheme of every linear, of embedding and
head, and how the codes are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from .candidates import Space

_CORRECTED = {"pass": "gptq", "refinements": 2, "correction": 1.0}
# Ways to find codes, cheap before dear: GPTQ; with errors of earlier layers compensated; then with scales and
# norms that learn.
METHODS: dict[str, dict[str, Any]] = {
    "rounded": {"using": {"pass": "gptq"}, "after": []},
    "corrected": {"using": _CORRECTED, "after": []},
    "tuned": {
        "using": _CORRECTED,
        "after": [{"pass": "tune", "training": {"epochs": 4}}],
    },
}


def recipe_of(
    space: Space, options: Sequence[int], method: str, calibration: dict[str, Any]
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
    how = METHODS[method]
    return {
        "name": "fit",
        "passes": [{"pass": "allocate", "plan": plan, "using": how["using"]}, *how["after"]],
        "embedding": tables[0],
        **({"head": tables[1]} if len(tables) > 1 else {}),
        "calibration": calibration,
    }
