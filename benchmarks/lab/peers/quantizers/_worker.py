"""A fresh process in a quantizer's environment: quantizes once, and answers with how long it took."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from ..reply import reply, versions
from ._contract import Task


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job. Seconds are of the quantizing function alone, with what it loads and writes."""
    module = import_module(f"{__package__}.{job['peer']}")
    os.environ.update(module.ENVIRONMENT)
    task = Task(Path(job["checkpoint"]), Path(job["calibration"]), Path(job["output"]))
    os.chdir(task.output)  # some tools write logs where they stand
    begin = time.perf_counter()
    module.quantize(task, job["variant"])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "versions": versions(module.DISTRIBUTIONS)}


if __name__ == "__main__":
    reply(answer)
