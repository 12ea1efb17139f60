"""A study at the smallest size: each kind of row once, on a few short texts and a few tokens.

What is run is what the study runs: the same commands, passes, exports and columns. Only numbers shrink, and
groups become as narrow as the models.
"""

import re
from collections.abc import Mapping
from typing import Any

from ....files.storage import sha256_json
from .schema import CalibrationText, Source, Study, StudyRow, StudyTable

# What is at most so large, wherever it stands in a recipe.
MOST = {
    "tokens": 256,
    "batch_tokens": 64,
    "micro_batch_tokens": 64,
    "fisher_tokens": 128,
    "answer_tokens": 4,
    "samples": 8,
    "length": 32,
    "epochs": 1,
    "iterations": 2,
    "measurements": 1,
    "beams": 2,
    "top_k": 16,
    "multiple": 8,
    "size": 300,
    "fit_steps": 2,
    "group_size": 32,
}
_GROUP = re.compile(r"-g(?:64|128)\b")


def smallest(study: Study) -> Study:
    """``study`` with one row of each kind, and those that they need; every table keeps one at least."""
    seen: set[str] = set()
    tables = [_table(table, seen) for table in study.tables]
    return study.model_copy(update={"tables": tables})


def _table(table: StudyTable, seen: set[str]) -> StudyTable:
    needed: set[str] = set(table.timing.baseline) if table.timing else set()
    needed |= {table.baseline, *table.times} | {held_out.against for held_out in table.held_out}
    subject = f"subject {_source(table.subject)}"
    for row in table.rows:
        # Of each subject one row that is made, and then what no row before has done.
        new = {*_kinds(row), *([subject] if row.made else [])} - seen
        if new:
            seen |= new
            needed |= {row.name, row.after}
    needed |= {row.name for row in [row for row in table.rows if row.original][:1]}
    kept = [row for row in table.rows if row.name in needed] or table.rows[:1]
    held_out = [
        one.model_copy(update={"windows": 2, "length": 32, "sentences": 8}) if not one.by else one
        for one in table.held_out
    ]
    changes: dict[str, Any] = {"rows": [_row(row) for row in kept], "held_out": held_out}
    changes |= {"calibration": _calibration(table.calibration), "subject": shrunk(table.subject)}
    if table.timing:
        changes["timing"] = table.timing.model_copy(update={"prompts": [8], "new_tokens": 2})
    return table.model_copy(update=changes)


def _kinds(row: StudyRow) -> list[str]:
    """What a row does: each of its passes with what it is built from, its tool, its export."""
    kinds = [row.recipe, row.options.split(" ")[0], row.export, row.peer.tool if row.peer else ""]
    kinds.append(_source(row.subject) if row.subject else "")
    for step in row.passes:
        using = (step.get("using") or {}).get("pass")
        parts = [step.get(key) for key in ("pass", "student_layers", "parts", "score")]
        parts.append("outputs" if step.get("losses") == "outputs" else None)
        kinds.append(sha256_json([*parts, using]))
    return [kind for kind in kinds if kind]


def _source(source: Source) -> str:
    """A name, or the maker with what it is asked, but for numbers."""
    return source if isinstance(source, str) else " ".join([str(source["make"]), *sorted(source)])


def _calibration(calibration: CalibrationText) -> CalibrationText:
    return CalibrationText.model_validate(shrunk(calibration.model_dump()))


def _row(row: StudyRow) -> StudyRow:
    changes: dict[str, Any] = {"passes": shrunk(row.passes), "subject": shrunk(row.subject)}
    if row.calibration is not None:
        changes["calibration"] = _calibration(row.calibration)
    return row.model_copy(update=changes)


def shrunk(value: Any) -> Any:
    """``value`` with every number of :data:`MOST` at most so large, and groups of at most 32 weights."""
    if isinstance(value, Mapping):
        return {key: _bounded(key, shrunk(entry)) for key, entry in value.items()}
    if isinstance(value, list):
        return [shrunk(entry) for entry in value]
    return _GROUP.sub("-g32", value) if isinstance(value, str) else value


def _bounded(key: str, value: Any) -> Any:
    return min(value, MOST[key]) if key in MOST and isinstance(value, int) else value
