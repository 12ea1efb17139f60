"""Completion as a person sees it: bash, zsh and fish in a terminal, set up by the lines of the docs.

A shell that is not installed is skipped, and says so.
"""

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.chain

DOCS = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text(encoding="utf-8")
START = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/completions/edgepress.fish"}
# What two tabs list.
LISTED = {
    "edgepress compress ": ["minilm", "smollm2", "checkpoint"],
    "edgepress compress smollm2 --recipe ": ["balanced", "w3a16-tuned", "w8a8"],
    "edgepress compress smollm2 --scheme ": ["W4A16", "W8A8"],
    "edgepress recipe passes ": ["gptq", "distill"],
    "edgepress devices show ": ["raspberry-pi-5", "h100-sxm"],
}
# What one tab makes of a word's beginning.
COMPLETED = {
    "edgepress prof": "profile",
    "edgepress compress smol": "smollm2",
    "edgepress compress che": "checkpoint",
    "edgepress compress ./che": "./checkpoint",
    "edgepress compress smollm2 --recipe fas": "fast",
    "edgepress compress smollm2 --scheme w8a8_": "W8A8_STATIC",
    "edgepress compress smollm2 --text wikip": "wikipedia",
    "edgepress recipe passes gpt": "gptq",
    "edgepress devices show raspb": "raspberry-pi-5",
    "edgepress validate checkpoint --min-cos": "--min-cosine",
}
# Titles, colours and movements of the cursor.
SEQUENCES = r"\x1b\].*?\x07|\x1b\[[0-9;?>=<]*[A-Za-z]|\x1b\(B|\x1b[=>]|\r"
LIMIT = 20.0  # seconds; what is looked for ends the wait


def lines(shell: str) -> str:
    """The lines of the docs for the start file of ``shell``."""
    found = re.findall(rf"^(\S.*?) +# in ~/{re.escape(START[shell])}", DOCS, re.MULTILINE)
    assert found, f"no line for {shell}"
    return "\n".join(found) + "\n"


class Shell:
    """A shell with a home of its own; every line is typed in a new one."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.home, self.folder = name, folder / "home", folder / "here"

    def set_up(self) -> None:
        (self.folder / "checkpoint").mkdir(parents=True)
        command, start = self.home / "bin/edgepress", self.home / START[self.name]
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgepress "$@"\n')
        command.chmod(0o755)
        start.parent.mkdir(parents=True, exist_ok=True)
        start.write_text(lines(self.name), encoding="utf-8")

    def shown(self, keys: str, wanted: list[str]) -> str:
        """What the terminal shows after ``keys``: all that is ``wanted``, or what came within the limit."""
        terminal, inside = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        command = ["setsid", "--ctty", self.name, "-i"]
        process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, cwd=self.folder, env=self._environment()
        )
        os.close(inside)
        try:
            os.write(terminal, b"echo rea''dy\r")
            _read(terminal, ["ready\n"])
            os.write(terminal, keys.encode())
            return _read(terminal, wanted)
        finally:
            process.kill()
            process.wait()
            os.close(terminal)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG") if name in os.environ}
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        return {**kept, "HOME": str(self.home), "PATH": path, "TERM": "xterm"}


def _read(terminal: int, wanted: list[str]) -> str:
    read, end, shown = b"", time.monotonic() + LIMIT, ""
    while time.monotonic() < end and not all(one in shown for one in wanted):
        if select.select([terminal], [], [], 0.2)[0]:
            new = os.read(terminal, 1 << 16)
            if b"\x1b[c" in new or b"\x1b[0c" in new:  # fish asks which terminal this is
                os.write(terminal, b"\x1b[?62c")
            read += new
            shown = re.sub(SEQUENCES, "", read.decode(errors="replace"))
    return shown


def typed_in(words: dict[str, Any]) -> list[Any]:
    """A shell and what is typed: all of it in bash, in the others every third; the rest is slow."""
    return [
        pytest.param(shell, typed, marks=pytest.mark.slow if shell != "bash" and place % 3 else ())
        for shell in START
        for place, typed in enumerate(words)
    ]


@pytest.fixture(scope="module")
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home with the docs' lines in it, an ``edgepress`` on the PATH, and a folder with a checkpoint."""
    name: str = request.param
    for needed in (name, "setsid"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed} here (apt-get install {name}, as .ci/run does)")
    made = Shell(name, tmp_path_factory.mktemp(name))
    made.set_up()
    return made


@pytest.mark.parametrize(("shell", "typed"), typed_in(LISTED), indirect=["shell"])
def test_two_tabs_list(shell: Shell, typed: str) -> None:
    shown = shell.shown(f"{typed}\t\t", LISTED[typed])
    assert all(name in shown for name in LISTED[typed]), shown


@pytest.mark.parametrize(("shell", "typed"), typed_in(COMPLETED), indirect=["shell"])
def test_a_tab_completes(shell: Shell, typed: str) -> None:
    # Beginning of the line, `echo`, enter: the line is printed as the tab left it.
    line = f"\n{typed.rpartition(' ')[0]} {COMPLETED[typed]}"
    shown = shell.shown(f"{typed}\t\x01echo \r", [line])
    assert line in shown, shown
