"""The README is held to the code: it names every room, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import edgepress
from edgepress.cli.entry import VERBS

ROOT = Path(edgepress.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLOORS = ("runtime", "compress", "export", "devices", "benchmarks", "cli")


def rooms() -> set[str]:
    """Paths of the folders that the README shows."""
    block = README.split("## What is where")[1].split("```")[1]
    found: set[str] = set()
    folders: list[str] = []
    for match in re.finditer(r"^( *)(\w+)/ ", block, flags=re.M):
        folders = [*folders[: len(match[1]) // 2], match[2]]
        found.add("/".join(folders))
    return found


def test_the_readme_names_every_room_and_no_other() -> None:
    inits = [path for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in inits}
    assert rooms() == folders | {"compress/recipes", "tests"}


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
