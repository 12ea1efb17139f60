"""``Saved``: the state of a run on disk, whole or not at all, from which a killed one goes on.

Where a model is spread, each process keeps the state of its rows in a file of its own. The first one's is
written last and says which step the others are of, so that a kill at any moment leaves a step that all have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ...errors import TrainingError
from ..pipeline.processes import Processes


class Saved:
    """The state at ``path``, and of other processes beside it."""

    def __init__(self, path: Path, processes: Processes) -> None:
        self.path, self.processes = path, processes

    def exists(self) -> bool:
        """Whether there is one, as the first process sees it."""
        return self.processes.agree(self.path.exists())

    def _own(self, step: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{self.processes.index}.{step}")

    @property
    def _holders(self) -> int:
        return self.processes.count if self.processes.sharded else 1

    def write(self, step: int, data: dict[str, Any]) -> None:
        """Keep ``data``, tensors and plain values, in the place of what is there."""
        if self.processes.sharded:
            if not self.processes.first:
                _write(self._own(step), data)
            self.processes.meet()
        if self.processes.first:
            _write(self.path, data | {"holders": self._holders})
        if self.processes.sharded:
            self.processes.meet()
            for older in self.path.parent.glob(self._own(step).stem + ".*"):
                if older != self._own(step):
                    older.unlink()

    def read(self) -> dict[str, Any]:
        """What was kept last, its tensors on the CPU: another process may have written them from its own GPU.

        Raises:
            TrainingError: by another number of processes than there are now.
        """
        data: dict[str, Any] = {}
        if self.processes.first or not self.processes.sharded:
            data = torch.load(self.path, map_location="cpu", weights_only=True)
        kept = self.processes.agree((data.get("holders", 1), data["course"]["step"]) if data else None)
        assert kept is not None
        holders, step = kept
        if holders != self._holders:
            raise TrainingError(
                f"this run was begun by {holders} processes, and cannot go on with {self._holders}",
                why="where a model is spread over processes (FSDP), each keeps the state of its part",
                fix="launch it as it was, or begin anew with --restart",
            )
        return data or torch.load(self._own(step), map_location="cpu", weights_only=True)


def _write(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as stream:
        torch.save(data, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
