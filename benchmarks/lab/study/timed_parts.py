"""A compression whose processor time is split into kinds of work: rounding, reading and writing, the probe.

    python -m edgepress.benchmarks.lab.study.timed_parts FILE compress MODEL …

Runs the command in this process and writes the seconds of each kind as JSON to ``FILE``. Work inside other
work counts once, where it is done. For recipes that read no text: of others the forward passes of the
calibration are among those of the probe.
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ....compress import checkpoint_manifest
from ....compress.model.checkpoint.reader import CheckpointReader
from ....compress.model.skeleton import Skeleton
from ....compress.pipeline import chain
from ....compress.pipeline.block_shards import BlockWriter
from ....compress.pipeline.damage_probe import SweptProbes
from ....compress.pipeline.journal import Journal
from ....compress.pipeline.sweep import Sweep

ROUNDING, FILES, PROBE = "rounding", "reading and writing", "exact KL of the step"
KINDS: dict[str, tuple[tuple[Any, str], ...]] = {
    ROUNDING: ((Sweep, "_apply"),),
    PROBE: ((Sweep, "_leave"), (SweptProbes, "begin"), (SweptProbes, "damage")),
    FILES: (
        (Skeleton, "fill"),
        (BlockWriter, "write"),
        (BlockWriter, "outer"),
        (Journal, "hashes"),
        (Journal, "add"),
        (CheckpointReader, "fingerprint"),
        (chain, "assemble"),
        (checkpoint_manifest, "write_manifest"),
    ),
}


class Clock:
    """Seconds of each kind of work, less those of other kinds inside it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.running: list[str] = []
        self.since = 0.0

    def switch(self) -> None:
        """What ran until now gets the time."""
        now = time.process_time()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose time is of ``kind``."""

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            self.switch()
            self.running.append(kind)
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.running.pop()

        return call


def main() -> None:
    """The command line."""
    file, *command = sys.argv[1:]
    clock = Clock()
    for kind, functions in KINDS.items():
        for owner, name in functions:
            setattr(owner, name, clock.timed(kind, getattr(owner, name)))
    sys.argv = ["edgepress", *command]
    try:
        runpy.run_module("edgepress", run_name="__main__")
    finally:
        Path(file).write_text(json.dumps(clock.seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
