"""A measurement that another machine made, read as a stranger's text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...devices.probe import Machine
from ...devices.state import State
from ...devices.transports.answers import LONGEST_LINE, parse, refused
from ...errors import InputError, RefusedByPolicy
from ...files.storage import canonical_json, open_regular
from ..records import record as records
from ..records.record import Measurement

MOST_LINES = 10_000


def foreign_line(found: dict[str, Any], who: str) -> tuple[Measurement, Machine]:
    """``found`` as a measurement of speed, with the machine that it was made on."""
    try:
        line = Measurement.model_validate(found)
        machine = Machine.model_validate_json(json.dumps(line.device))
        for moment in ("before", "after"):
            State.model_validate(line.state[moment])
        canonical_json(line.model_dump())  # an infinite number is no JSON
    except (ValidationError, KeyError, ValueError, RecursionError) as error:
        raise refused(who, str(error)[:300]) from None
    return line, machine


def _line(text: bytes, file: Path, number: int) -> Measurement:
    """One line of ``file``, whose refusal says where it stands."""
    try:
        return foreign_line(parse(text, file.name), file.name)[0]
    except RefusedByPolicy as error:
        raise RefusedByPolicy(
            f"{file}, line {number}, is no measurement of edgepress",
            why=error.why,
            fix="nothing was added: copy the record that the kit wrote again, whole and as it is",
        ) from None


def import_lines(file: Path, record: Path | None, name: str | None = None) -> tuple[list[Measurement], Path]:
    """Add the lines of ``file`` that ``record`` lacks to it; by default the run file of what was measured.
    The machine that they were made on is called ``name`` where there is one.

    Returns:
        The lines that were added, and the run file.
    """
    lines: list[Measurement] = []
    if not file.exists():
        raise InputError(f"there is no file {file}", fix="give what a kit wrote, or a meter's log")
    with open_regular(file) as stream:
        while text := stream.readline(LONGEST_LINE + 1):
            if text.strip():
                lines.append(_line(text, file, len(lines) + 1))
            if len(lines) > MOST_LINES:
                raise InputError(f"{file} has more than {MOST_LINES} lines")
    if not lines:
        raise InputError(
            f"{file} holds no measurements", fix="run the kit's start file, and copy record.jsonl"
        )
    plain = "".join(one if one.isalnum() or one in "-_." else "-" for one in lines[0].subject.name[:80])
    record = record or Path("runs") / f"{plain.lstrip('.') or 'imported'}.jsonl"
    records.refuse_foreign(record)
    known = {line.id for line in records.read([record])} if record.exists() else set()
    added = [line for line in lines if line.id not in known]
    if name is not None:
        added = [line.model_copy(update={"device": {**line.device, "name": name}}) for line in added]
    for line in added:
        records.append(record, line)
    return added, record
