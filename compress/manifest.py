"""``edgepress.json``: what was done to a checkpoint, by which recipe, from what, and how each layer fared.

Nothing in it depends on the clock or the machine: the same input, recipe and seed give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..storage import hash_tree, write_json
from .block import LayerStatus
from .calibration import Calibration
from .recipe import Recipe
from .scheme import Scheme
from .weights import MANIFEST, WeightSource

SCHEMA = "edgepress.checkpoint/1"


def final_layers(statuses: Sequence[LayerStatus]) -> list[dict[str, Any]]:
    """The last status of each layer, in the order of the model."""
    last = {status.name: status for status in statuses}
    return [status.as_dict() for status in last.values()]


def step_summaries(recipe: Recipe, statuses: Sequence[LayerStatus]) -> list[dict[str, Any]]:
    """Per pass: layers, worst and mean error, and how many ended in which status."""
    summaries = []
    for name, step in recipe.steps:
        mine = [status for status in statuses if status.step == name]
        counts: dict[str, int] = {}
        for status in mine:
            counts[status.status] = counts.get(status.status, 0) + 1
        errors = [status.error for status in mine] or [0.0]
        scheme = step.weight_scheme
        summaries.append(
            {
                "pass": name,
                "scheme": scheme.name if scheme else None,
                "layers": len(mine),
                "statuses": counts,
                "worst_error": max(errors),
                "mean_error": sum(errors) / len(errors),
            }
        )
    return summaries


def schemes_by_layer(recipe: Recipe, source: WeightSource) -> dict[str, Scheme]:
    """The scheme each linear ends with: that of the last pass that quantizes it."""
    schemes: dict[str, Scheme] = {}
    for _, step in recipe.steps:
        if step.weight_scheme is not None:
            schemes |= {linear.name: step.weight_scheme for linear in step.selected(source.anatomy)}
    return {
        linear.name: schemes[linear.name] for linear in source.anatomy.linears() if linear.name in schemes
    }


def write_manifest(
    directory: Path,
    *,
    key: str,
    model: dict[str, Any],
    recipe: Recipe,
    calibration: Calibration | None,
    statuses: Sequence[LayerStatus],
) -> None:
    """Hash every file of ``directory`` and write its manifest, the last file of a checkpoint."""
    write_json(
        directory / MANIFEST,
        {
            "schema": SCHEMA,
            "tool": {"name": "edgepress", "version": __version__},
            "run": {"key": key},
            "source": model,
            "scheme": recipe.summary,
            "recipe": recipe.as_dict(),
            "recipe_sha256": recipe.sha256,
            "calibration": None if calibration is None else calibration.describe(),
            "embedding": recipe.embedding,
            "layers": final_layers(statuses),
            "steps": step_summaries(recipe, statuses),
            "files": hash_tree(directory, skip=frozenset({MANIFEST})),
        },
    )
