"""A fresh process in a trainer's environment: trains once, and answers with the versions it used."""

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
    student, teacher, tokens, output = (
        Path(job[name]) for name in ("student", "teacher", "tokens", "output")
    )
    task = Task(student, teacher, tokens, output, job["rows"], job["learning_rate"])
    os.chdir(task.output)  # some tools write logs where they stand
    module.train(task, job["variant"])
    task.copy_companions()
    return {"versions": versions(module.DISTRIBUTIONS)}


if __name__ == "__main__":
    reply(answer)
