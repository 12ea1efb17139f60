"""The suite with the oldest and the newest packages, on both ends of Python: ``make check-versions``.

Each environment is made below WORK by uv, which reads none of pip's settings: a machine's constraints do
not count. The oldest packages are the lowest that pyproject.toml states and that have a wheel there.
``PYTHONS`` and ``PACKAGES`` in the environment choose some. What passed is written to
docs/results/versions.md, unless arguments after WORK, which are pytest's, choose other tests.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/results/versions.md"
EXTRAS = ("compress", "cpu", "dev")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
SHOWN = ("torch", "transformers", "numpy", "onnx", "onnx-ir", "onnxruntime")
PYTEST = [*"--numprocesses logical --maxprocesses 4 --dist loadfile -m".split(), "not slow"]
HEAD = f"""# Oldest and newest packages

`make check-versions`: the suite with the lowest versions that pyproject.toml states and with the newest of
the package index, on the oldest and on a newer Python, without a machine's constraints. The suite is
what `make test` runs: `-m 'not slow'`.

| Python | packages | {", ".join(SHOWN)} | passed | failed | skipped | machine | date |
|---|---|---|---|---|---|---|---|
"""


def made(work: Path, python: str, packages: str) -> Path:
    """The interpreter of an environment with those packages and edgepress in editable form."""
    folder = work / f"{python}-{packages}"
    found = folder / "bin/python"
    uv = [sys.executable, "-m", "uv"]
    install = [*uv, "pip", "install", "--quiet", "--python", str(found)]
    extras = [word for name in EXTRAS for word in ("--extra", name)]
    how = ["--resolution", RESOLUTIONS[packages], "--only-binary", ":all:"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", python, str(folder)],
        [*install, *how, *extras, "-r", "pyproject.toml"],
        [*install, "--no-deps", "--editable", "."],
        [*install, "--no-deps", "--require-hashes", "-r", "requirements/demo.txt"],
    ):
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "UV_NO_CONFIG": "1"})
    return found


def versions(python: Path) -> str:
    """Of the packages that matter most."""
    program = f"from importlib.metadata import version\nprint(*map(version, {SHOWN!r}), sep=', ')"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def tested(python: Path, arguments: list[str]) -> tuple[int, dict[str, int]]:
    """Exit code of the tests, and how many had each outcome; their output is shown as it comes."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    last = ""
    for line in run.stdout or ():
        print(line, end="", flush=True)
        last = line if re.search(r"\d+ (passed|failed)", line) else last
    return run.wait(), {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", last)}


def kept() -> dict[tuple[str, str], str]:
    """The rows that the page has, by Python and packages."""
    lines = PAGE.read_text(encoding="utf-8").splitlines(keepends=True) if PAGE.exists() else []
    cells = [(line, [cell.strip() for cell in line.split("|")]) for line in lines]
    return {(cell[1], cell[2]): line for line, cell in cells if len(cell) > 2 and cell[2] in RESOLUTIONS}


def main(work: str, *arguments: str) -> int:
    """Test each combination and write its row at once, beside those of the others; the highest exit code."""
    worst = 0
    given = list(arguments) or PYTEST
    for python in os.environ.get("PYTHONS", "3.11 3.13").split():
        for packages in os.environ.get("PACKAGES", " ".join(RESOLUTIONS)).split():
            found = made(Path(work).absolute(), python, packages)
            code, counts = tested(found, given)
            worst = max(worst, code)
            outcomes = " | ".join(str(counts.get(name, 0)) for name in ("passed", "failed", "skipped"))
            where = f"{platform.machine()}, {os.cpu_count()} cores | {datetime.now(UTC).date()}"
            row = f"{python} | {packages} | {versions(found)} | {outcomes} | {where}"
            rows = kept() | {(python, packages): f"| {row} |\n"}
            if given == PYTEST:
                PAGE.write_text(HEAD + "".join(rows[each] for each in sorted(rows)), encoding="utf-8")
    return worst


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
