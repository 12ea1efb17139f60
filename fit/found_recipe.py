"""A choice as a plain recipe, which ``compress -r`` repeats: the scheme of every linear, of embedding and
head, and how the codes are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..compress.numbers.table_scheme import kept_on_grid, table_scheme
from ..errors import InputError
from .candidates import Space
from .methods import Method
from .packaged import packaged_recipe

# What linears are rounded by: four times what packaged recipes read, which are to be quick.
_ROUNDED_TOKENS = 32_768


def recipe_of(
    space: Space,
    options: Sequence[int],
    method: Method,
    calibration: dict[str, Any],
    tokens: float | None = None,
) -> dict[str, Any]:
    """The recipe for one option of every unit, or the packaged one; ``calibration`` is that section of it.
    ``tokens``: of a sample, in the mean, which are fewer than its length where samples are paragraphs.
    """
    if method.packaged:
        return packaged_recipe(method.packaged, calibration)
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
    samples = max(1, int(_ROUNDED_TOKENS / (tokens or calibration["length"])))
    samples = min(samples, calibration.get("samples", samples))  # a recipe names no more than it has
    return {
        "name": "fit",
        "passes": method.passes(
            plan,
            _rounded(space, tables),
            tied=len(tables) < 2,
            samples=None if space.hears else samples,
            first=space.first,
        ),
        "embedding": tables[0] if tables else None,
        # One that is stored as the embedding is not named: a pass that rounds both says it in this way.
        **({"head": tables[1]} if len(set(tables)) > 1 else {}),
        "calibration": calibration,
    }


def _rounded(space: Space, tables: Sequence[str | None]) -> list[dict[str, Any]]:
    """The pass that rounds embedding and head, where it does so in all of their schemes."""
    schemes = [table_scheme(name) for name in tables if name is not None]
    if (
        not tables
        or not space.solves_tables
        or len(schemes) < len(tables)
        or not all(map(kept_on_grid, schemes))
    ):
        return []
    own = {"head": tables[1]} if len(tables) > 1 else {}
    return [{"pass": "embedding", "scheme": tables[0], **own}]
