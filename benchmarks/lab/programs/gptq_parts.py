"""GPTQ's processor time by kinds of work, beside the floor of its arithmetic.

    python -m edgepress.benchmarks.lab.programs.gptq_parts FILE compress MODEL …

Runs the command in this process under Python's profiler, whose clock is the process's CPU time, then measures
how fast products of this size are, and writes the seconds of each kind and that rate as JSON to ``FILE``.
"""

import cProfile
import json
import runpy
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from pstats import Stats

from ..peers.floor import product_rate
from ..planned.gptq_floor import RATE, SIDE
from .gptq_profile import by_kind


def main() -> None:
    """The command line."""
    file, *command = sys.argv[1:]
    profiler = cProfile.Profile(time.process_time)
    sys.argv = ["edgepress", *command]
    profiler.enable()
    try:
        runpy.run_module("edgepress", run_name="__main__")
    finally:
        profiler.disable()
        parts = by_kind(Stats(profiler))
        # In a process of its own: its matrices are no part of the command's peak of memory.
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            parts[RATE] = apart.submit(product_rate, SIDE, SIDE, SIDE).result()
        Path(file).write_text(json.dumps(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
