"""``train.jsonl``: what a training run did, one JSON line a step and one a measurement.

Nothing in it depends on the clock, and a resumed run cuts off what it will do again: the file is the same
bytes however often the run was killed.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path


class Log:
    """Appends lines to the file at ``path``, if it ``writes``: of several processes one does."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, size: int) -> None:
        """Keep the first ``size`` bytes."""
        if self.writes and self.size > size:
            os.truncate(self.path, size)

    def write(self, **entries: float) -> None:
        """Add a line; numbers that are not finite are null."""
        if not self.writes:
            return
        line = {
            name: value if isinstance(value, int) or math.isfinite(value) else None
            for name, value in entries.items()
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
