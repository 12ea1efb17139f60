"""``edgepress.json``: what was done to a checkpoint, by which recipe, from what, and how each layer fared.

Nothing in it depends on the clock or the machine: the same input, recipe and seed give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..files.hashed_tree import hash_tree
from ..files.storage import write_atomic, write_json
from ..terminal.progress import Progress
from .bill_of_materials import BOM, TOOLS, task_of, write_bill_of_materials
from .model.opens_in import opens_in_transformers
from .model.weights import AS_EMBEDDING, MANIFEST, WeightSource
from .model_card import CARD, checkpoint_card
from .numbers.scheme import runs_on
from .pipeline.block import LayerStatus
from .pipeline.stage import Record
from .recipe import Recipe
from .text.calibration import Calibration

SCHEMA = "edgepress.checkpoint/1"


def final_layers(statuses: Sequence[LayerStatus]) -> list[dict[str, Any]]:
    """The last status of each layer, in the order of the model."""
    last = {status.name: status for status in statuses}
    return [status.as_dict() for status in last.values()]


def step_summaries(recipe: Recipe, record: Record) -> list[dict[str, Any]]:
    """Per pass: layers, worst and mean error, how many ended in which status, and the damage after it: how
    far the model is from the original then, on the text of :mod:`.text.probe_text`.
    """
    summaries, statuses = [], record.statuses
    for number, (name, step) in enumerate(recipe.steps):
        mine = [status for status in statuses if status.place == number]
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
                "damage": record.damage[number],
                **({"details": record.details[str(number)]} if str(number) in record.details else {}),
            }
        )
    return summaries


def write_manifest(
    directory: Path,
    *,
    key: str,
    model: dict[str, Any],
    recipe: Recipe,
    calibration: Calibration | None,
    reads: dict[str, str],
    record: Record,
    probe: dict[str, Any] | None,
    progress: Progress,
) -> None:
    """Write the card of ``directory``, hash its files, and write its bill of materials and its manifest, the
    last file of a checkpoint.
    """
    made = {
        "source": model,
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.sha256,
        "calibration": None if calibration is None else calibration.describe(),
        "reads": reads,
    }
    result = WeightSource.open(directory)
    manifest = {
        **made,
        "schema": SCHEMA,
        "tool": {"name": "edgepress", "version": __version__},
        "run": {"key": key},
        "scheme": recipe.summary,
        "embedding": None if result.anatomy.patches is not None else recipe.embedding,
        **({} if recipe.head == AS_EMBEDDING else {"head": recipe.head}),
        "notes": list(dict.fromkeys(step.note for _, step in recipe.steps if step.note)),
        "runs_on": runs_on(result.schemes.values()),
        "opens_in": {"transformers": opens_in_transformers(result).as_dict()},
        "probe": probe,
        "layers": final_layers(record.statuses),
        "steps": step_summaries(recipe, record),
    }
    stored = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    write_atomic(directory / CARD, checkpoint_card(manifest, task_of(result.anatomy), stored).encode())
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    with progress.task("hashing the result", size) as task:
        files = hash_tree(directory, skip=frozenset({MANIFEST, BOM}), tick=task.advance)
    files[BOM] = write_bill_of_materials(
        directory,
        files,
        made=made,
        anatomy=result.anatomy,
        architectures=result.reader.config.get("architectures"),
        scheme=recipe.summary,
        tools=TOOLS,
    )
    write_json(directory / MANIFEST, {**manifest, "files": files})
