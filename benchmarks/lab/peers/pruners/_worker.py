"""A fresh process in a pruner's environment: prunes once, and answers with the versions it used."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from ..reply import reply, versions
from ._contract import Task


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job."""
    module = import_module(f"{__package__}.{job['peer']}")
    os.environ.update(module.ENVIRONMENT)
    task = Task(Path(job["checkpoint"]), Path(job["calibration"]), Path(job["output"]))
    os.chdir(task.output)  # some tools write logs where they stand
    module.prune(task, job["variant"])
    task.copy_companions()
    return {"versions": versions(module.DISTRIBUTIONS)}


if __name__ == "__main__":
    reply(answer)
