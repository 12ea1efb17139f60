"""Steps that are skipped when their result is already there, with an overall ETA.

A journal beside the results remembers from what each step was made: its settings and the hashes of its
inputs. A step whose identity is unchanged and whose result still verifies is skipped; anything else is made
again.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import OutputExists
from ...files.storage import read_json, sha256_json, write_json
from ...terminal.progress import Progress, ProgressTask

# How far the planned seconds are believed before the first step has shown what this machine does.
PRIOR_SECONDS = 60.0


@dataclass(frozen=True)
class ResumableStep:
    """One titled piece of work.

    Attributes:
        key: unique name in the journal.
        seconds: planned duration, for the ETA.
        identity: what the result depends on, JSON-ready; called when the step's turn comes, because it may
        hash
            what earlier steps made.
        whole: whether the result is there and verifies.
        work: makes the result, replacing an older one.
    """

    key: str
    title: str
    seconds: float
    identity: Callable[[], Mapping[str, Any]]
    whole: Callable[[], bool]
    work: Callable[[], None]


def run_steps(steps: Sequence[ResumableStep], journal: Path, progress: Progress) -> list[str]:
    """Run what is not there yet, in order; returns the titles of the steps that were skipped."""
    made = read_json(journal) if os.path.lexists(journal) else {}
    ours = isinstance(made, dict) and all(isinstance(one, str) and len(one) == 64 for one in made.values())
    if journal.is_symlink() or not ours:
        raise OutputExists(f"{journal} is not of this work, and stays as it is", fix="choose another output")
    skipped: list[str] = []
    clock = _Clock(sum(step.seconds for step in steps))
    for number, step in enumerate(steps, 1):
        place = f"[{number}/{len(steps)}] {step.title}"
        identity = sha256_json(step.identity())
        if made.get(step.key) == identity and step.whole():
            progress.note(f"{place}: already there and verified, skipped")
            skipped.append(step.title)
            clock.skip(step.seconds)
            continue
        progress.note(f"{place}  ({clock.describe()})")
        started = time.monotonic()
        step.work()
        clock.finish(step.seconds, time.monotonic() - started)
        made[step.key] = identity
        write_json(journal, made)
    return skipped


class _Clock:
    """The ETA: planned seconds, corrected by how long the finished steps took beside their plan."""

    def __init__(self, planned: float) -> None:
        self.left, self.planned, self.spent = planned, 0.0, 0.0

    def skip(self, planned: float) -> None:
        self.left -= planned

    def finish(self, planned: float, spent: float) -> None:
        self.left -= planned
        self.planned, self.spent = self.planned + planned, self.spent + spent

    def describe(self) -> str:
        """``1:05, about 6 min left``."""
        pace = (self.spent + PRIOR_SECONDS) / (self.planned + PRIOR_SECONDS)
        left = self.left * pace
        rest = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"{int(self.spent) // 60}:{int(self.spent) % 60:02d}, about {rest} left"


class StepProgress:
    """Bars of a step, and none of its notes: the step's own line says what it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        """As the progress of the whole has it."""
        with self._progress.task(label, total) as task:
            yield task

    def note(self, text: str) -> None:
        """Nothing to show."""
