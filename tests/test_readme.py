"""The README is held to the code: its tree names every source file, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import edgepress
from edgepress.cli import VERBS

ROOT = Path(edgepress.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLOORS = ("runtime", "compress", "export", "devices", "benchmarks")


def tree() -> set[str]:
    """Paths of the Python files that the README's tree shows."""
    block = README.split("## What is where")[1].split("```")[1]
    found: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        match = re.match(r"( *)(\S+?)(/?)(?: |$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 2
        folders = folders[:depth]
        if match[3]:
            folders.append(match[2])
        elif match[2].endswith(".py"):
            found.add("/".join([*folders, match[2]]))
    return found


def test_the_tree_names_every_source_file_and_no_other() -> None:
    ground = {path.name for path in ROOT.glob("*.py")}
    files = {path.relative_to(ROOT).as_posix() for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    files = {name for name in files if not name.endswith("__init__.py")}
    assert tree() == ground | files


def test_every_command_line_names_a_verb() -> None:
    code = README.split("## By hand")[1].split("```")[1]
    lines = [line for line in code.splitlines() if line.startswith("edgepress ")]
    assert len(lines) >= 9
    for line in lines:
        assert shlex.split(line, comments=True)[1] in VERBS


def test_the_python_example_uses_the_public_api() -> None:
    names = set(re.findall(r"edgepress\.(\w+)\(", README))
    assert names and names <= set(edgepress.__all__)


def test_figures_that_the_page_shows_exist() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target
