"""Rewrites the rooms of the README from the first sentences of their docstrings (``make format`` runs it)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("cli", "benchmarks", "devices", "export", "compress", "runtime")
HEADING = "## What is where"
COLUMN = 20
DATA_FOLDERS = {"compress/recipes": "recipes that come with the package: YAML, readable and hashed"}


def first_sentence(path: Path) -> str:
    """What the docstring of a module says before its first full stop, in plain text."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    plain = " ".join(text.split("\n\n")[0].split()).replace("``", "").replace("`", "")
    return re.split(r"\.(?:\s|$)", re.sub(r":\w+:", "", plain), maxsplit=1)[0]


def _line(depth: int, name: str, text: str) -> str:
    return f"{('  ' * depth + name).ljust(COLUMN - 2)}  {text}".rstrip()


def _folder(folder: Path, depth: int) -> list[str]:
    relative = folder.relative_to(ROOT).as_posix()
    text = DATA_FOLDERS.get(relative) or first_sentence(folder / "__init__.py")
    lines = [_line(depth, f"{folder.name}/", text)]
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (child / "__init__.py").exists() or child.relative_to(ROOT).as_posix() in DATA_FOLDERS:
            lines += _folder(child, depth + 1)
    return lines


def tree() -> str:
    """The rooms as the README shows them, a line each."""
    lines = [line for floor in FLOORS for line in [*_folder(ROOT / floor, 0), ""]]
    ground = "errors.py, storage.py, staging.py, … in the root: typed errors, whole files, the terminal"
    mirror = "mirrors the folders; pico models with real architectures and tokenizers"
    return "\n".join([*lines, ground, _line(0, "tests/", mirror)])


def main() -> None:
    """Put the tree into the README."""
    path = ROOT / "README.md"
    head, rest = path.read_text(encoding="utf-8").split(HEADING)
    before, _, after = rest.split("```", 2)
    path.write_text(f"{head}{HEADING}{before}```\n{tree()}\n```{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
