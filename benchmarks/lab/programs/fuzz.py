"""Mutants of small files against every reader: each is read or refused with a typed error.

    python -m edgepress.benchmarks.lab.programs.fuzz [RESULTS] [--minutes 10] [--reader NAME]… [--seed FIRST]
    python -m edgepress.benchmarks.lab.programs.fuzz --reader NAME --seed N --mutants 1  # with its traceback

A reader runs in a process of its own with 2 GB of memory more than it began with, as many side by side as
there are processors. It ends when a mutant takes five seconds of a processor, or thirty in all, and where it
dies the next process goes on behind the mutant that killed it. A first turn of five seconds each says what a
mutant costs; the rest of the time is split so that all readers get as many. Each mutant is made of its seed
alone. The first seed comes from the date, so that no two nights see the same.
"""

import argparse
import datetime
import faulthandler
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from ....errors import EdgepressError
from ....files.third_party_errors import third_party_errors_are_typed
from ..study.page import write_table
from .fuzz_readers import artifacts, forms, gguf_files, models
from .fuzz_readers.models import Reader
from .fuzz_readers.mutations import mutant
from .fuzz_readers.tally import MOST_FAILURES, Tally, share_out

READERS: dict[str, Callable[[Path], Reader]] = {
    made.__name__: made
    for made in (
        *(gguf_files.gguf, gguf_files.gguf_settings),
        *(models.journal, models.weights, models.licence),
        *(artifacts.graph, forms.stored_forms),
        *(artifacts.manifests, artifacts.template, artifacts.records, models.config),
        *(models.recipe, models.tokenizer, models.calibration),
    )
}
COMMAND = "python -m edgepress.benchmarks.lab.programs.fuzz"
MEMORY = 2 << 30
SEEDS_A_DAY = 10_000_000
ENOUGH = 40_000
PILOT_SECONDS = 5.0
# Of all the time, for processes that end later than planned.
_SPARE = 0.04
# A mutant that waits instead of computing may do so for so many times what it may compute.
_PATIENCE = 6


def mutated(reader: Reader, seed: int) -> tuple[Path, bytes]:
    """The file that the mutant ``seed`` stands in for, and its bytes."""
    generator = random.Random(seed)
    path = generator.choice(sorted(reader.files))
    return path, mutant(path.read_bytes(), reader.files[path], reader.words, generator)


def try_one(reader: Reader, seed: int, tally: Tally) -> None:
    """Read one mutant, and put its file back."""
    path, changed = mutated(reader, seed)
    whole = path.read_bytes()
    _put(path, changed)
    try:
        with third_party_errors_are_typed(EdgepressError):
            reader.read(path)
        tally.read += 1
    except (EdgepressError, MemoryError) as error:
        if type(error) in (EdgepressError, MemoryError):  # the root of the tree is a bug, whoever raises it
            tally.failures[seed] = f"{path.name}: {_told(error)}"
        else:
            tally.refused[type(error).__name__] += 1
    finally:
        _put(path, whole)


def _told(error: BaseException) -> str:
    cause = error.__cause__ or error
    place = traceback.extract_tb(cause.__traceback__)[-1]
    return f"{type(cause).__name__}: {str(cause)[:120]} ({Path(place.filename).name}:{place.lineno})"


def _put(path: Path, data: bytes) -> None:
    # A file that is cut to nothing first is flushed when it is closed, on ext4: milliseconds each.
    with path.open("r+b") as stream:
        stream.write(data)
        stream.truncate()


def run_child(name: str, first: int, seconds: float, most: int, folder: Path) -> None:
    """In a process of its own: try mutants from ``first`` on, and leave the seed at work and the tally in
    ``folder``.
    """
    reader = READERS[name](folder / "files")
    _limit_memory()
    tally, started, armed = Tally(), time.monotonic(), 0.0
    with (folder / "seed").open("wb", buffering=0) as at_work:
        for seed in range(first, first + most):
            now = time.monotonic()
            if now - started >= seconds or len(tally.failures) >= MOST_FAILURES:
                break
            at_work.seek(0)
            at_work.write(b"%020d" % seed)
            if now - armed > 1.0:  # each time costs a thread
                faulthandler.dump_traceback_later(_PATIENCE * reader.seconds + 1.0, exit=True)
                armed = now
            signal.setitimer(signal.ITIMER_PROF, reader.seconds)
            known = len(tally.failures)
            try_one(reader, seed, tally)
            if seed % 64 == 0 or len(tally.failures) > known:
                _save(tally, started, folder)
    signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    _save(tally, started, folder)


def _save(tally: Tally, started: float, folder: Path) -> None:
    tally.seconds = time.monotonic() - started
    (folder / "tally.json").write_text(json.dumps(vars(tally)))


def _limit_memory() -> None:
    import psutil

    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def fuzz(name: str, first: int, seconds: float, most: int) -> Tally:
    """Try mutants for so many ``seconds``, ``most`` at most, over as many processes as that takes."""
    tally, seed = Tally(), first
    while tally.seconds < seconds and seed < first + most and len(tally.failures) < MOST_FAILURES:
        with tempfile.TemporaryDirectory(prefix="edgepress-fuzz-") as scratch:
            options = [name, str(seed), str(seconds - tally.seconds), str(first + most - seed), scratch]
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name if __spec__ else "", "--child", *options],
                capture_output=True,
                check=False,
            )
            found = _tally(Path(scratch))
            if done.returncode == 0:
                tally.add(found)
                break
            at_work = Path(scratch) / "seed"
            if not at_work.exists():
                raise SystemExit(f"{name} could not begin: {done.stderr.decode(errors='replace')[-2000:]}")
            seed = int(at_work.read_bytes())
            hung = b"Timeout (" in done.stderr or done.returncode == -signal.SIGPROF
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            found.failures[seed] = (
                "hang" if hung else f"crash: exit code {done.returncode} {''.join(last)[:120]}"
            )
            tally.add(found)
            seed += 1
    return tally


def _tally(folder: Path) -> Tally:
    file = folder / "tally.json"
    if not file.exists():
        return Tally()
    found = json.loads(file.read_text())
    failures = {int(seed): text for seed, text in found["failures"].items()}
    return Tally(found["seconds"], found["read"], Counter(found["refused"]), failures)


def replay(name: str, seed: int) -> None:
    """Read one mutant in this process, without a limit, so that what it raises is seen."""
    with tempfile.TemporaryDirectory(prefix="edgepress-fuzz-") as scratch:
        reader = READERS[name](Path(scratch) / "files")
        path, changed = mutated(reader, seed)
        print(f"{path.name}, {len(changed)} bytes: {changed[:400]!r}", file=sys.stderr)
        path.write_bytes(changed)
        print(f"read: {reader.read(path)!r:.400}")


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        child, start, seconds, most, folder = sys.argv[2:]
        return run_child(child, int(start), float(seconds), int(most), Path(folder))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--reader", action="append", choices=sorted(READERS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of all readers together")
    parser.add_argument("--mutants", type=int, default=ENOUGH, help="of each reader, at most")
    parser.add_argument("--seed", type=int, help="the first one")
    arguments = parser.parse_args()
    names = arguments.reader or list(READERS)
    first = arguments.seed
    if first is None:
        first = datetime.datetime.now(datetime.UTC).date().toordinal() * SEEDS_A_DAY
    if arguments.mutants == 1:
        return replay(names[0], first)
    return _run(names, first, arguments.minutes, arguments.mutants, arguments.results)


def _run(names: list[str], first: int, minutes: float, most: int, results: Path) -> None:
    processors = len(os.sched_getaffinity(0))
    began, tallies = time.monotonic(), {name: Tally() for name in names}

    def turn(name: str, seconds: float) -> None:
        done = tallies[name].mutants
        tallies[name].add(fuzz(name, first + done, seconds, most - done))

    with ThreadPoolExecutor(processors) as pool:
        list(pool.map(turn, names, repeat(min(PILOT_SECONDS, 60 * minutes / len(names)))))
        turned = time.monotonic() - began
        # Processes import torch before they begin, which takes as long again.
        starts = turned - sum(tally.seconds for tally in tallies.values()) / processors
        left = max(0.0, 60 * minutes * (1 - _SPARE) - turned - max(0.0, starts))
        shares = share_out(tallies, processors * left, most)
        # The longest first, so that the last ones end together.
        order = sorted(shares, key=lambda name: -shares[name])
        list(pool.map(turn, order, [min(shares[name], left) for name in order]))
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    failures = [
        f"{name}, seed {seed}: {text}"
        for name, tally in tallies.items()
        for seed, text in sorted(tally.failures.items())
    ]
    rows = [tally.row(name) for name, tally in tallies.items()]
    print("\n".join([*(" | ".join(row) for row in rows), *failures]), flush=True)
    write_table(
        results / "fuzz.md",
        "Mutants of every reader",
        f"{COMMAND} --minutes {minutes:g} --seed {first}",
        ["reader", "mutants", "read", "refused", "neither", "mutants/s", "refused with"],
        rows,
        [
            f"All took {used:.0f} s of {processors} processors in {time.monotonic() - began:.0f} s.",
            "Neither: a crash, a hang (five seconds of a processor, or thirty in all), or an untyped error.",
            *(failures or ["Every mutant was read or refused."]),
        ],
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
