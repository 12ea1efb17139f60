"""The tests of graphs, sessions, operators and bundles on processors that qemu's user mode emulates.

It runs ``WHOLE`` on each of ``PROCESSORS`` and on 64-bit Arm, or on those that are named; ``--quick`` is
``QUICK`` on the one least like this machine's. Children that a test starts are not emulated on x86. With
``--write`` what came out goes into docs/results/processors.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

from .emulated_python import EMULATOR, arm_python

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/processors"
PAGE = ROOT / "docs/results/processors.md"
CPUINFO = Path("/proc/cpuinfo")
X86 = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
BUNDLES = "tests/processors/opened_bundles.py"
QUICK = (BUNDLES, "tests/runtime/session", "tests/runtime/kernels/test_norm_operator.py")
WHOLE = (
    *(BUNDLES, "tests/runtime/session", "tests/runtime/kernels", "tests/runtime/engine"),
    *("tests/export/graph", "tests/export/proof", "tests/export/formats/test_onnx_hub.py"),
)
# By the emulator's names, with what Linux would list of it; TCG has neither VNNI nor AVX-512.
AVX2 = "sse4_2 popcnt avx avx2 fma f16c"
PROCESSORS = {"Nehalem": "sse4_2 popcnt", "Haswell": AVX2, "EPYC-Milan": f"{AVX2} vaes vpclmulqdq"}
ARM = "aarch64"
VNNI = {"avx512_vnni", "avx_vnni"}
# References by torch and numpy need no FMA, which costs fifteen times as much here.
VARIABLES = {"OMP_NUM_THREADS": "1", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"}
OPTIONS = ("-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=1800", "-m", "not slow")


def least_like(cpuinfo: str) -> str:
    """The processor of ``PROCESSORS`` least like the one that ``cpuinfo`` describes."""
    flags = set(re.findall(r"\w+", "".join(re.findall(r"^flags\s*:(.*)", cpuinfo, re.M)[:1])))
    return "Haswell" if flags & VNNI or "avx2" not in flags else "Nehalem"


def command(processor: str) -> tuple[list[str], dict[str, str]]:
    """Python on ``processor``, and its variables; where it reads /proc/cpuinfo it reads of that processor.

    Raises:
        FileNotFoundError: there is no such emulator.
        subprocess.CalledProcessError: Arm's packages cannot be fetched.
    """
    folder, emulator = BUILT / processor, EMULATOR if processor == ARM else X86
    if emulator is None:
        raise FileNotFoundError("there is no qemu here (apt-get install qemu-user)")
    if processor == ARM:
        python, variables = arm_python(folder, ROOT)
        own = (str(BUILT / "import"), str(folder / "packages"))
        return [str(python)], variables | {"PYTHONPATH": os.pathsep.join(own)}
    (folder / "proc").mkdir(parents=True, exist_ok=True)
    text = CPUINFO.read_text(encoding="utf-8")
    for name, value in {"model name": f"emulated {processor}", "flags": PROCESSORS[processor]}.items():
        text = re.sub(rf"(?m)^({name}\s*): .*", rf"\1: {value}", text)
    (folder / "proc/cpuinfo").write_text(text, encoding="utf-8")
    return [emulator, "-cpu", f"{processor},-hle,-rtm", "-L", str(folder), sys.executable], {}


def files_of(given: tuple[str, ...]) -> list[str]:
    """The files of ``given``, the largest first."""
    found = [
        one
        for name in given
        for one in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("test_*.py"))
    ]
    return [str(one) for one in sorted(found, key=lambda one: -one.stat().st_size)]


def run(processor: str, files: list[str]) -> dict[str, float]:
    """What came of ``files`` on ``processor``: tests, failures, errors, skipped and seconds."""
    begun, running, (python, variables) = time.monotonic(), [], command(processor)
    environment = {"PYTHONPATH": str(BUILT / "import"), **os.environ, **VARIABLES, **variables}
    for part in range(2):
        report = BUILT / f"{processor}-{part}.xml"
        report.unlink(missing_ok=True)
        words = [*python, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *files[part::2]]
        with report.with_suffix(".log").open("wb") as log:
            running.append(
                (subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log), report)
            )
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0.0)
    for process, report in running:
        if process.wait() not in (0, 1) or not report.exists():
            counts["errors"] += 1
            print(f"{processor}: pytest ended with {process.returncode}, see {report.with_suffix('.log')}")
            continue
        for suite in ET.parse(report).iter("testsuite"):
            counts = {name: value + float(suite.get(name, 0)) for name, value in counts.items()}
        for case in ET.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                print(f"{processor}: failed {case.get('classname')}::{case.get('name')}")
    return counts | {"seconds": time.monotonic() - begun}


def row(processor: str, part: str, counts: dict[str, float]) -> str:
    """A line of the page's table; ``part`` says which tests."""
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    cells = (f"{passed:,.0f}", f"{failed:.0f}", f"{counts['skipped']:,.0f}", f"{counts['seconds'] / 60:.1f}")
    return f"| {processor}, emulated, {part} | {datetime.now(UTC):%Y-%m-%d} | {' | '.join(cells)} |"


def write(line: str) -> None:
    """In the place of the row of the same processor and part, or as the last of the table."""
    name, text = line.split(" |")[0] + " |", PAGE.read_text(encoding="utf-8")
    kept = [one for one in text.splitlines() if not one.startswith(name)]
    last = max(place for place, one in enumerate(kept) if one.startswith("| "))
    PAGE.write_text("\n".join([*kept[: last + 1], line, *kept[last + 1 :]]) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("processors", nargs="*", metavar="PROCESSOR")
    options = parser.parse_args()
    link, bundles, bad = BUILT / "import/edgepress", BUILT / "bundles", False
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to("../../..")
    shutil.rmtree(bundles, ignore_errors=True)
    make = [sys.executable, "-m", "tests.processors.opened_bundles", str(bundles)]
    subprocess.run(make, check=True, cwd=ROOT, env=os.environ | {"TQDM_DISABLE": "1"})
    usual = [least_like(CPUINFO.read_text(encoding="utf-8"))] if options.quick else [*PROCESSORS, ARM]
    for processor in options.processors or usual:
        try:
            counts = run(processor, files_of(QUICK if options.quick else WHOLE))
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            print(f"{processor}: not run, {error}")
            bad = True
            continue
        print(line := row(processor, "quick" if options.quick else "all", counts), flush=True)
        bad |= counts["failures"] + counts["errors"] > 0
        if options.write:
            write(line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
