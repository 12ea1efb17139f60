"""A row made by the command lines a user would type: compressed, exported, validated, profiled.

Everything stays below the work directory, and what is there is not made again: an interrupted study goes on
where it was. A row whose recipe changed since is an error, not a mixture.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ....compress.model.models import resolve
from ....errors import InputError
from ....files.storage import read_json, sha256_json, write_json
from ....plugins import load
from ...records.record import Measurement, read
from ..peers.workspace import Workspace
from .peer_rows import make_by_peer, write_failure
from .schema import HeldOut, Peer, StudyRow, StudyTable
from .sources import CORPORA, MAKERS, Sources, cost_record


@dataclass(frozen=True)
class RowQuality:
    """Metrics of a row on a text, those of what it was compared with, and by metric what each window gave."""

    values: Mapping[str, float]
    reference: Mapping[str, float]
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Workshop:
    """Makes and measures the rows of one table.

    Attributes:
        folder: of this table's subject; tables with one subject share its rows.
    """

    def __init__(self, table: StudyTable, sources: Sources, work: Path, place: Workspace | None) -> None:
        self.table, self.sources, self.place, self.work = table, sources, place, work
        self.rows = {row.name: row for row in table.rows}

    def subject(self, row: StudyRow) -> str:
        """The original of a row: a demo name or a directory."""
        return self.sources.model(row.subject or self.table.subject)

    def original_path(self, row: StudyRow) -> Path:
        """Where its files are."""
        return resolve(self.subject(row)).path

    def folder(self, row: StudyRow) -> Path:
        """Where what is made of the row's subject stays."""
        subject = self.subject(row)
        path = self.work / (Path(subject).name if Path(subject).is_dir() else subject)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def checkpoint(self, row: StudyRow) -> str:
        """The compressed checkpoint, made where it is not there; the subject itself for the original."""
        if row.instead is not None:
            return self.sources.model(row.instead)
        if not row.made:
            return self.checkpoint(self.rows[row.after]) if row.after else self.subject(row)
        target, record = self.folder(row) / row.name, self.folder(row) / f"{row.name}.row.json"
        identity = self._identity(row)
        if target.exists() and record.exists() and read_json(record) != identity:
            raise InputError(
                f"{target} was made by another recipe or of other text",
                fix="take another WORK directory, or remove it there",
            )
        if not target.exists():
            write_json(record, identity)
            made = self._by_peer(row, row.peer, target) if row.peer else self._compressed(row, target)
            if made is not None:
                write_json(self.folder(row) / f"{row.name}.cost.json", made)
        return str(target)

    def failure(self, row: StudyRow) -> str:
        """Why a row of another tool could not be made; empty for all others."""
        if row.peer is None:
            return ""
        file = self.folder(row) / f"{row.name}.failed.json"
        return str(read_json(file)["error"]) if file.exists() else ""

    def bundle(self, row: StudyRow) -> Path:
        """The exported bundle, made where it is not there."""
        options = shlex.split(row.export or self.table.export)
        bundle = self.folder(row) / f"{row.name}-onnx"
        source = self.checkpoint(row)
        if not bundle.exists():
            self.sources.edgepress("export", source, *options, "-o", str(bundle), "-q")
        return bundle

    def quality(self, row: StudyRow, held_out: HeldOut) -> RowQuality:
        """The metrics of a row on a text, measured where they are not known."""
        bundle = self.table.validated == "bundle"
        measured = str(self.bundle(row)) if bundle else self.checkpoint(row)
        asked = held_out.model_dump(exclude={"metrics", "label"}) | {"bundle": bundle}
        file = self.folder(row) / f"{row.name}.quality-{sha256_json(asked)[:8]}.jsonl"
        if held_out.by:
            return self._measured_by(row, held_out.by, file)
        text = self.sources.text(held_out.text)
        given = ["--corpus" if text in CORPORA else "--text", text]
        for option in ("windows", "length", "sentences"):
            value = getattr(held_out, option)
            given += [] if value is None else [f"--{option}", str(value)]
        against = self.subject(row)
        if held_out.against:
            other = self.rows[held_out.against]
            against = str(self.bundle(other)) if bundle else self.checkpoint(other)
        command = ["validate", measured, "--against", against, *given, "--threads", "1"]
        return _quality(self._recorded(file, command)[-1])

    def profiled(self, row: StudyRow) -> list[Measurement]:
        """What ``edgepress profile`` found about a row beside the original, and about the original."""
        if self.table.profile is None or row.original or not row.timed:
            return []
        original = next(one for one in self.table.rows if one.original)
        command = ["profile", str(self.bundle(row)), "--baseline", str(self.bundle(original))]
        command += shlex.split(self.table.profile)
        return self._recorded(self.folder(row) / f"{row.name}.profile.jsonl", command)

    def cost(self, row: StudyRow) -> dict[str, Any]:
        """CPU seconds and peak resident megabytes of the compression, and the versions of another tool; empty
        where they are not known.
        """
        subject = Path(self.subject(row)).with_suffix(".cost.json")
        file = subject if row.original else self.folder(row) / f"{row.name}.cost.json"
        return dict(read_json(file)) if file.exists() else {}

    def steps(self, row: StudyRow) -> list[dict[str, Any]]:
        """What the manifest of a row says of each pass."""
        file = Path(self.checkpoint(row)) / "edgepress.json"
        return list(read_json(file)["steps"]) if file.exists() else []

    def _identity(self, row: StudyRow) -> dict[str, Any]:
        calibration = row.calibration or self.table.calibration
        known = row.model_dump(include={"passes", "recipe", "options", "after", "peer"})
        return {**known, "calibration": calibration.model_dump(), "settings": self.table.recipe}

    def _compressed(self, row: StudyRow, target: Path) -> dict[str, float]:
        source = self.checkpoint(self.rows[row.after]) if row.after else self.subject(row)
        chosen = shlex.split(row.options) or ["-r", row.recipe or str(self._recipe(row))]
        chosen += self.sources.calibrated(row.calibration or self.table.calibration)
        if self.table.teacher_logits:
            chosen += ["--answers", str(self.folder(row) / "teacher-logits")]
        command = ["compress", source, *chosen, "-o", str(target), "-q"]
        return cost_record(self.sources.edgepress(*command, threads=self.table.threads))

    def _recipe(self, row: StudyRow) -> Path:
        file = self.folder(row) / f"{row.name}.yaml"
        content = {"name": row.name, "passes": row.passes, **self.table.recipe}
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    def _by_peer(self, row: StudyRow, peer: Peer, target: Path) -> dict[str, Any] | None:
        student = self.checkpoint(self.rows[row.after]) if row.after else self.subject(row)
        tokens = self.sources.sequences(row.calibration or self.table.calibration, student)
        place = self.place or Workspace(self.work)  # a tool without packages of its own needs none
        failed = self.folder(row) / f"{row.name}.failed.json"
        failed.unlink(missing_ok=True)
        made, error = make_by_peer(peer, self.subject(row), student, tokens, target, place)
        if made is None:
            write_failure(failed, error)
        return made

    def _measured_by(self, row: StudyRow, maker: str, file: Path) -> RowQuality:
        if not file.exists():
            module = load(MAKERS, maker, "maker")
            teacher = resolve(self.sources.model(self.table.subject)).path
            found = module.measure(Path(self.checkpoint(row)), teacher, self.sources)
            write_json(file, {"values": found, "reference": {}})
        return RowQuality(**read_json(file))

    def _recorded(self, run: Path, command: list[str]) -> list[Measurement]:
        """The lines that a command records, run where it was not."""
        if not run.exists():
            part = run.with_suffix(".part")
            part.unlink(missing_ok=True)
            self.sources.edgepress(*command, "--record", str(part), "-q")
            part.rename(run)
        return read([run])


def _quality(line: Measurement) -> RowQuality:
    values = {name: metric.value for name, metric in line.metrics.items() if metric.value is not None}
    original = (line.compare or {}).get("original", {})
    reference = {name: entry["value"] for name, entry in original.items() if entry.get("value") is not None}
    return RowQuality(values, reference, line.samples)
