"""Rewrites the tree of the README from the first sentences of the docstrings (``make format`` runs it)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("runtime", "compress", "export", "devices", "benchmarks")
HEADING = "## What is where"
WIDTH = 95  # of the sentence beside a name
COLUMN = 26
DATA_FOLDERS = {
    "compress/recipes": "Recipes that come with the package: YAML, readable and hashed",
    "devices/targets": "Plug-ins: one target a YAML file; the file name is --device",
}


def first_sentence(path: Path) -> str:
    """What the docstring of a module says before its first full stop, in plain text."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    plain = " ".join(text.split("\n\n")[0].split()).replace("``", "").replace("`", "")
    sentence = re.split(r"\.(?:\s|$)", re.sub(r":\w+:", "", plain), maxsplit=1)[0]
    if len(sentence) <= WIDTH:
        return sentence
    return sentence[: WIDTH - 2].rsplit(" ", 1)[0] + " …"


def _line(depth: int, name: str, text: str) -> str:
    return f"{('  ' * depth + name).ljust(COLUMN - 2)}  {text}".rstrip()


def _folder(folder: Path, depth: int) -> list[str]:
    lines = []
    relative = folder.relative_to(ROOT).as_posix()
    text = DATA_FOLDERS.get(relative) or first_sentence(folder / "__init__.py")
    lines.append(_line(depth, f"{folder.name}/", text))
    if relative in DATA_FOLDERS:
        return lines
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(_line(depth + 1, path.name, first_sentence(path)))
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (child / "__init__.py").exists() or child.relative_to(ROOT).as_posix() in DATA_FOLDERS:
            lines += _folder(child, depth + 1)
    return lines


def tree() -> str:
    """The tree as the README shows it."""
    ground = sorted(ROOT.glob("*.py"), key=lambda path: (path.name != "cli.py", path.name))
    lines = [_line(0, path.name, first_sentence(path)) for path in ground]
    for floor in FLOORS:
        lines += ["", *_folder(ROOT / floor, 0)]
    mirror = "mirrors the folders; pico models with real architectures and tokenizers"
    return "\n".join([*lines, "", _line(0, "tests/", mirror)])


def main() -> None:
    """Put the tree into the README."""
    path = ROOT / "README.md"
    head, rest = path.read_text(encoding="utf-8").split(HEADING)
    before, _, after = rest.split("```", 2)
    path.write_text(f"{head}{HEADING}{before}```\n{tree()}\n```{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
