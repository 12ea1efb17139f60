"""``TrialClock``: the seconds of all runs that worked on a trial, kept in its directory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..compress.pipeline.journal import read_sealed, write_sealed

_FILE = "seconds.json"


class TrialClock:
    """Of the trial in ``directory``.

    Attributes:
        seconds: so far; of a run that was killed until the last file that it wrote.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        known = read_sealed(self._file) or {}
        self.seconds = float(known.get("seconds", 0.0))
        if "begun" in known:
            self.seconds += max(0.0, _newest(directory) - float(known["begun"]))

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is done meanwhile counts, whatever ends it."""
        write_sealed(self._file, {"seconds": self.seconds, "begun": time.time()})
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begun
            write_sealed(self._file, {"seconds": self.seconds})


def _newest(directory: Path) -> float:
    """When the last file below ``directory`` was written; another process may remove files meanwhile."""
    times = [0.0]
    for folder, _, names in os.walk(directory):  # which passes over what is not there any more
        for name in names:
            with suppress(FileNotFoundError):
                times.append(Path(folder, name).stat().st_mtime)
    return max(times)
