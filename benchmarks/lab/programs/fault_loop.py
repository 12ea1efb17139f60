"""Let the n-th system call of a verb fail, for n = 1, 2, 3 … until none is left, and look at what is there.

    python -m edgepress.benchmarks.lab.programs.fault_loop [benchmarks/lab/results] [--work DIRECTORY]

As SQLite tests itself. ``fault_loop.c`` is compiled here and loaded before the C library: it counts the calls
that write below a folder (open for writing, write, rename, fsync, mkdir, link, unlink, …), and lets one of
them end in ENOSPC, EIO or EINTR, write half of what it should, or kill the process. An old output is there
and is to be replaced. After each fault it is there whole, or the new one is, or it lies put aside by a kill
between two renames; then the same command has to end with the bytes of an undisturbed run, and leave nothing
beside. Each run is a fork of a process in which all is imported.
"""

import argparse
import ctypes
import errno
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....compress.api import compress_model
from ....export.api import export_bundle
from ....files.hashed_tree import hash_tree
from ..same_bytes.pico_models import save_pico
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.fault_loop"
SHORT, KILL = -1, -2
FAULTS = {
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EINTR": errno.EINTR,
    "short write": SHORT,
    "SIGKILL": KILL,
}
LIBRARY, FAMILY, SCHEMES = "EDGEPRESS_FAULT_LOOP", "llama", ("W8A16", "W4A16")
KILLED, INTERNAL = 137, 70
COLUMNS = [
    *("verb", "fault", "calls", "tried", "ended typed", "ended well", "killed", "untyped"),
    *("old or new, whole", "old put aside", "lost or torn", "same bytes again", "left beside"),
]


@dataclass
class Tally:
    """What came of the faults of one kind in one verb."""

    calls: int
    tried: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    same: int = 0
    beside: int = 0
    wrong: list[str] = field(default_factory=list)

    def row(self, verb: str, fault: str) -> list[str]:
        """A line of the table."""
        ends = [str(self.ends[name]) for name in ("typed", "well", "killed", "untyped")]
        states = [str(self.states[name]) for name in ("whole", "aside", "torn")]
        return [
            verb,
            fault,
            str(self.calls),
            str(self.tried),
            *ends,
            *states,
            str(self.same),
            str(self.beside),
        ]


class Verb:
    """A verb that replaces an output in ``folder``, made anew before each fault."""

    def __init__(self, name: str, folder: Path, arguments: list[str], old: Path) -> None:
        self.name, self.folder, self.old = name, folder, old
        self.output = folder / "out"
        self.arguments = [name, *arguments, "-o", str(self.output), "--overwrite", "--json"]
        self.whole: dict[str, Any] = {}
        self.before = hash_tree(old)

    def prepare(self) -> None:
        """The old output alone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shutil.copytree(self.old, self.output)

    def run(self, number: int = 0, fault: int = 0) -> tuple[int, int, str]:
        """The exit code, the calls that were counted, and the call that the fault met."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(_in_child(self, number, fault, writer))
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            said = stream.read().decode()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        calls, _, met = said.partition(" ")
        return (KILLED if code == -9 else code), int(calls or 0), met

    def state(self) -> str:
        """What of the outputs is there."""
        if not self.output.exists():
            aside = self.folder / ".out.partial" / "replaced"
            return "aside" if aside.exists() and hash_tree(aside) == self.before else "torn"
        return "whole" if hash_tree(self.output) in (self.before, self.whole) else "torn"


def _in_child(verb: Verb, number: int, fault: int, writer: int) -> int:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    library = ctypes.CDLL(os.environ[LIBRARY])
    library.fault_met.restype = ctypes.c_char_p
    library.fault_count.restype = ctypes.c_long
    library.fault_begin(os.fsencode(verb.folder), ctypes.c_long(number), fault)
    sys.argv = ["edgepress", *verb.arguments]
    code = INTERNAL
    try:
        runpy.run_module("edgepress", run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    os.write(writer, f"{library.fault_count()} {library.fault_met().decode()}".encode())
    return code


def _numbers(calls: int, most: int) -> list[int]:
    """Of 1 to ``calls`` all, or ``most`` that are spread evenly, the first and the last among them."""
    if calls <= most:
        return list(range(1, calls + 1))
    return sorted({1 + round(step * (calls - 1) / (most - 1)) for step in range(most)})


def tally(verb: Verb, fault: str, calls: int, most: int) -> Tally:
    """One fault after the other in a verb that makes so many ``calls``."""
    found = Tally(calls)
    for number in _numbers(calls, most):
        verb.prepare()
        code, _, met = verb.run(number, FAULTS[fault])
        end = {0: "well", KILLED: "killed"}.get(code, "typed" if 0 < code < INTERNAL else "untyped")
        state = verb.state()
        again, _, _ = verb.run()
        same = again == 0 and hash_tree(verb.output) == verb.whole
        beside = sorted(path.name for path in verb.folder.iterdir() if path != verb.output)
        found.tried += 1
        found.ends[end] += 1
        found.states[state] += 1
        found.same += same
        found.beside += bool(beside)
        if end == "untyped" or state == "torn" or not same or beside:
            found.wrong.append(
                f"{verb.name}, {fault} at call {number} ({met}): {end}, {state}, {again}, {beside}"
            )
    return found


def measure(work: Path, most: int) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and what went wrong."""
    model = work / "model"
    save_pico(model, FAMILY, {})
    rows, wrong = [], []
    for number, scheme in enumerate(SCHEMES):  # here, so that all is imported
        made = compress_model(str(model), scheme=scheme, output=work / f"c{number}")
        export_bundle(made, output=work / f"b{number}")
    verbs = [
        Verb("compress", work / "place", [str(model), "--scheme", SCHEMES[1]], work / "c0"),
        Verb("export", work / "place", [str(work / "c1")], work / "b0"),
    ]
    for verb in verbs:
        verb.prepare()
        code, calls, _ = verb.run()
        if code:
            raise SystemExit(f"exit code {code} from {verb.arguments}")
        verb.whole = hash_tree(verb.output)
        for fault in FAULTS:
            found = tally(verb, fault, calls, most)
            rows.append(found.row(verb.name, fault))
            wrong += found.wrong
            print(" | ".join(rows[-1]), *found.wrong, sep="\n", file=sys.stderr, flush=True)
    return rows, wrong


def compiled(folder: Path) -> Path:
    """``fault_loop.c`` as a shared library in ``folder``, by the system's compiler."""
    library = folder / "fault_loop.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def main() -> None:
    """The command line; starts itself again with the library loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("--most", type=int, default=1 << 30, help="faults of a kind in a verb, spread evenly")
    arguments = parser.parse_args()
    if LIBRARY not in os.environ:
        with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-faults-") as folder:
            library = compiled(Path(folder))
            loaded = {"LD_PRELOAD": str(library), LIBRARY: str(library), "EDGEPRESS_FAULT_WORK": folder}
            again = [sys.executable, "-m", COMMAND.rpartition(" ")[2], *sys.argv[1:]]
            sys.exit(subprocess.run(again, env=os.environ | loaded, check=False).returncode)
    rows, wrong = measure(Path(os.environ["EDGEPRESS_FAULT_WORK"]).resolve(), arguments.most)
    tried = sum(int(row[3]) for row in rows)
    sampled = " (of the calls so many, spread evenly)" if any(row[2] != row[3] for row in rows) else ""
    write_table(
        arguments.results / "faults.md",
        "Faults at system calls",
        f"{COMMAND} --most {arguments.most}" if sampled else COMMAND,
        COLUMNS,
        rows,
        [
            f"{tried} faults{sampled}, one a run; {len(wrong)} with an untyped end, an output that is "
            "neither old nor new, other bytes afterwards, or something left beside.",
            f"A pico {FAMILY}: {SCHEMES[1]} to nearest in the place of {SCHEMES[0]}, and its bundle in the "
            "place of that one's. A short write writes half; other calls than writes go through then.",
            *(f"Wrong: {one}" for one in wrong[:20]),
        ],
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
