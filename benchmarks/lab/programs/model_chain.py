"""One model through the whole chain by the command line: the bundle, quality and speed of each variant.

What a variant needs is kept below the work directory, so that an interrupted check goes on where it was.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ....storage import sha256_file, write_json
from ...records.record import Measurement, read

WINDOWS = 8


@dataclass(frozen=True)
class Variant:
    """One row of a table: a label, and how its checkpoint is made (None is the original).

    ``timed`` is false where another row has the same graph. The original is timed as every row's other arm.
    """

    label: str
    name: str
    options: str | None
    timed: bool = True


class Chain:
    """Runs the commands of one model's table below ``work``."""

    def __init__(self, model: str, work: Path, wikitext: Path | None, quick: bool) -> None:
        self.model, self.work, self.wikitext, self.quick = model, work / model, wikitext, quick
        self.work.mkdir(parents=True, exist_ok=True)

    def call(self, command: str, threads: int | None = None) -> tuple[float, float]:
        """Run ``edgepress command``; returns its CPU seconds and peak resident megabytes."""
        environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
        print(f"$ edgepress {command}", file=sys.stderr, flush=True)
        child = subprocess.Popen([sys.executable, "-m", "edgepress", *shlex.split(command)], env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"failed: edgepress {command}")
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def bundle(self, variant: Variant) -> Path:
        """The exported bundle of a variant, made if it is not there."""
        checkpoint, bundle = self.work / variant.name, self.work / f"{variant.name}-onnx"
        source = self.model
        if variant.options is not None:
            source = str(checkpoint)
            if not checkpoint.exists():
                options = variant.options.format(work=self.work)
                seconds, rss = self.call(f"compress {self.model} {options} -o {checkpoint} -q", threads=1)
                write_json(self.work / f"{variant.name}.cost.json", {"cpu_seconds": seconds, "rss_mb": rss})
        if not bundle.exists():
            self.call(f"export {source} -o {bundle} -q")
        return bundle

    def quality(self, variant: Variant) -> Path:
        """The run file with the quality of a variant on each text."""
        run = self.work / f"{variant.name}.quality.jsonl"
        if not run.exists():
            part = run.with_suffix(".part")
            part.unlink(missing_ok=True)
            options = f"--windows {WINDOWS} --threads 1 --record {part} -q"
            against = f"validate {self.bundle(variant)} --against {self.model} {options}"
            self.call(against)
            if self.wikitext is not None:
                self.call(f"{against} --text {self.wikitext}")
            part.rename(run)
        return run

    def speed(self, variant: Variant, original: Path) -> Path:
        """The run file with speed and memory of a variant and of the original, measured in turns."""
        run = self.work / f"{variant.name}.speed.jsonl"
        if not run.exists():
            part = run.with_suffix(".part")
            part.unlink(missing_ok=True)
            quick = "--quick" if self.quick else ""
            self.call(f"profile {self.bundle(variant)} --baseline {original} {quick} --record {part} -q")
            part.rename(run)
        return run

    def measure(self, variants: tuple[Variant, ...]) -> dict[Variant, list[Measurement]]:
        """The lines about each variant's bundle: quality on each text, and speed."""
        original = self.bundle(variants[0])
        timed = [variant for variant in variants[1:] if variant.timed]
        lines = read([self.quality(v) for v in variants] + [self.speed(v, original) for v in timed])
        found = {}
        for variant in variants:
            identity = sha256_file(self.bundle(variant) / "manifest.json")
            found[variant] = [line for line in lines if line.subject.manifest_sha256 == identity]
        return found
