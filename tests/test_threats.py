"""docs/threats.md: fifty bars in order, each with tests and programs that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import edgepress

ROOT = Path(edgepress.__file__).parent
PAGE = ROOT / "docs" / "threats.md"
STATUS = re.compile(r"(held|in part|not held|nothing to hold)\b")


def bars() -> list[tuple[str, str, list[str]]]:
    """Name, status and what is named of each row."""
    rows = [
        line.strip("|").split("|")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| R", "| D"))
    ]
    return [(bar.split()[0], status.strip(), re.findall(r"`([^`]+)`", by)) for bar, status, by in rows]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_are_fifty_bars_each_with_a_status() -> None:
    names = [name for name, _, _ in bars()]
    assert [name for name in names if name[0] == "R"] == [f"R{number:02}" for number in range(1, 51)]
    devices = [name for name in names if name[0] == "D"]
    assert devices == [f"D{number:02}" for number in range(1, len(devices) + 1)]
    assert [name for name, status, _ in bars() if not STATUS.match(status)] == []


def test_what_is_held_is_held_by_a_test() -> None:
    named = {name: [one for one in held if "::" in one] for name, _, held in bars()}
    empty = {name for name, status, _ in bars() if status.startswith(("held", "in part")) and not named[name]}
    assert empty == set()


def test_every_test_and_program_exists() -> None:
    missing = []
    for name, _, held in bars():
        for one in held:
            file, _, function = one.partition("::")
            path = ROOT / file
            if not path.is_file() or (function and function not in functions(path)):
                missing.append(f"{name}: {one}")
    assert missing == []


def test_its_links_arrive() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (PAGE.parent / link).exists()] == []
