"""The stages of a recipe one after another: each ends in a whole checkpoint that the next one reads.

Finished stages survive a kill; the last one's parts become the result.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...files.hashed_tree import check_tree, hash_tree
from ...files.storage import write_atomic
from ...terminal.progress import Progress
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..text.calibration import Calibration
from .algorithm import Pass
from .block import LayerStatus
from .block_pass import BlockPass
from .block_shards import Masks
from .damage_probe import DamageProbe
from .journal import Journal, read_sealed, write_sealed
from .model_pass import ModelPass
from .processes import ALONE, Processes
from .stage import LOG, Record, Stage, StageResult, Steps, assemble
from .sweep import Sweep

RECORD = "stage.json"


def stages_of(steps: Steps) -> list[Steps]:
    """``steps`` cut into stages: runs of block passes that read the same samples, and single model passes."""
    stages: list[list[tuple[str, Pass]]] = []
    for name, step in steps:
        before = stages[-1][0][1] if stages else None
        both = isinstance(step, BlockPass) and isinstance(before, BlockPass)
        if before is not None and both and step.samples == before.samples:
            stages[-1].append((name, step))
        else:
            stages.append([(name, step)])
    return list(stages)


def schemes_after(steps: Steps, source: WeightSource) -> dict[str, Scheme]:
    """The scheme each linear has after ``steps``: that of the last pass that quantizes it, or its own."""
    schemes = dict(source.schemes)
    for _, step in steps:
        for linear in step.selected(source.anatomy):
            scheme = step.scheme_of(linear)
            schemes |= {} if scheme is None else {linear.name: scheme}
    return {
        linear.name: schemes[linear.name] for linear in source.anatomy.linears() if linear.name in schemes
    }


class StageChain:
    """Runs ``steps`` on ``source``; everything it needs to continue after a kill is below ``work``.

    Of several ``processes`` the first one runs, and the others follow.
    """

    def __init__(
        self,
        source: WeightSource,
        steps: Steps,
        calibration: Calibration | None,
        device: torch.device,
        work: Path,
        key: str,
        progress: Progress,
        processes: Processes = ALONE,
        answers: Path | None = None,
        probe: DamageProbe | None = None,
    ) -> None:
        self.original, self.stages, self.calibration = source, stages_of(steps), calibration
        self.processes, self.answers, self.probe = processes, answers, probe
        self.device, self.work, self.key, self.progress = device, work, key, progress

    def run(self, result: Path) -> Record:
        """Run what is left to do and write the model's files into the directory ``result``."""
        source, record, start = self._resume()
        for number in range(start, len(self.stages)):
            steps, last = self.stages[number], number + 1 == len(self.stages)
            if len(self.stages) > 1:
                names = ", ".join(name for name, _ in steps)
                self.progress.note(f"stage {number + 1} of {len(self.stages)}: {names}")
            directory = self.work / f"stage-{number}"
            outcome = self._run_stage(source, steps, directory, number)
            made = result if last else self.work / "checkpoint.partial"
            assemble(source, outcome, made, self.progress)
            record.add(steps, outcome, self._damage(steps, outcome, made))
            self._keep_log(directory, steps, number)
            if last:
                self._join_logs(result)
            else:
                source = self._keep(record, directory, number)
        self.processes.agree(None)
        return record

    def follow(self) -> None:
        """Take part in the stages that all processes work on, until the first one has run the last."""
        while (number := self.processes.agree(None)) is not None:
            before = self._checkpoint(number - 1)
            source = WeightSource.open(before) if before.is_dir() else self.original
            self._apply(source, self.stages[number][0][1], number)

    def _checkpoint(self, number: int) -> Path:
        return self.work / f"checkpoint-{number}"

    def _resume(self) -> tuple[WeightSource, Record, int]:
        for number in reversed(range(len(self.stages) - 1)):
            path = self._checkpoint(number)
            data = read_sealed(path / RECORD)
            if data is not None and not check_tree(path, data["files"], skip=frozenset({RECORD})):
                self.progress.note(f"continuing after stage {number + 1} of {len(self.stages)}")
                statuses = [LayerStatus(**status) for status in data["statuses"]]
                return WeightSource.open(path), Record(statuses, data["damage"], data["details"]), number + 1
        return self.original, Record(), 0

    def _run_stage(self, source: WeightSource, steps: Steps, directory: Path, number: int) -> StageResult:
        only = steps[0][1]
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(only, ModelPass):
            if only.together:
                self.processes.agree(number)
            return self._apply(source, only, number)
        passes = [[(name, step)] for name, step in steps if isinstance(step, BlockPass)]
        journal = Journal.open(directory, self.key)
        calibration = self._read(only) if any(step.calibrated for _, step in steps) else None
        schemes = schemes_after(steps, source)
        masks = self._masks(number)
        options = self.device, journal, self.progress, masks, self.probe
        return Sweep(source, passes, schemes, calibration, *options).run()

    def _apply(self, source: WeightSource, only: Pass, number: int) -> StageResult:
        assert isinstance(only, ModelPass)
        stage = Stage(
            source,
            self.original,
            self.work / f"stage-{number}",
            self._read(only),
            self._masks(number),
            self.device,
            self.progress,
            self.processes,
            self.answers,
        )
        return only.apply(stage)

    def _read(self, step: Pass) -> Calibration | None:
        """The calibration text that ``step`` reads."""
        return None if self.calibration is None else self.calibration.spread(step.samples)

    def _masks(self, number: int) -> Masks:
        """Those that the stage before left."""
        return Masks.open(sorted((self._checkpoint(number - 1) / "masks").glob("*.safetensors")))

    def _damage(self, steps: Steps, outcome: StageResult, made: Path) -> list[dict[str, Any] | None]:
        """What each of ``steps`` left of the model: known of a sweep, else found by running what was made."""
        if outcome.damage:
            return [*outcome.damage]
        if self.probe is None or len(steps) > 1:
            return [None] * len(steps)
        return [self.probe.measure(WeightSource.open(made))]

    def _keep_log(self, directory: Path, steps: Steps, number: int) -> None:
        """What a stage logged, headed by its name, where it outlives the stage."""
        if (directory / LOG).exists():
            head = json.dumps({"stage": number, "pass": steps[0][0]}) + "\n"
            write_atomic(self.work / f"{number:04d}-{LOG}", head.encode() + (directory / LOG).read_bytes())

    def _join_logs(self, result: Path) -> None:
        logs = sorted(self.work.glob(f"*-{LOG}"))
        if logs:
            (result / LOG).write_bytes(b"".join(log.read_bytes() for log in logs))

    def _keep(self, record: Record, directory: Path, number: int) -> WeightSource:
        """Make what was assembled a checkpoint of its own, whole or not at all, and forget the one before."""
        path, partial = self._checkpoint(number), self.work / "checkpoint.partial"
        if (directory / "masks").is_dir():
            shutil.copytree(directory / "masks", partial / "masks")
        write_sealed(partial / RECORD, {**asdict(record), "files": hash_tree(partial)})
        shutil.rmtree(path, ignore_errors=True)  # one that was damaged
        partial.rename(path)
        shutil.rmtree(directory)
        shutil.rmtree(self._checkpoint(number - 1), ignore_errors=True)
        return WeightSource.open(path)
