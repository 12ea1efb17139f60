"""A fresh process in a trainer's environment: trains once, and answers with the versions it used.

One JSON job on stdin, one JSON answer on stdout, as the workers of the engines.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    versions = {}
    for name in module.DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": versions}


def main() -> None:
    """Answer the job on stdin."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps(answer(json.loads(sys.stdin.read()))), file=channel, flush=True)
    channel.close()
    os._exit(0)


if __name__ == "__main__":
    main()
