"""What the page of the architecture shows of the folders: what each contains, and which imports which."""

import ast
import re
from collections import Counter
from pathlib import Path

from ...benchmarks.lab.source_tree import arrows

ROOT = Path(__file__).parent.parent.parent
FLOORS = ("cli", "fit", "benchmarks", "devices", "export", "compress", "runtime", "files", "terminal")
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
    """The folders, a line each, as a block of Markdown."""
    lines = [line for floor in FLOORS for line in [*_folder(ROOT / floor, 0), ""]]
    ground = "errors.py, plugins.py in the root: typed errors, the listing of plug-ins"
    mirror = "mirrors the folders; pico models with real architectures and tokenizers"
    return "\n".join(["```", *lines, ground, _line(0, "tests/", mirror), "```"])


def _room(name: str) -> str:
    """The floor and room of a file; files in a floor's own folder are of the floor."""
    parts = name.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0] if len(parts) > 1 else "ground"


def imports() -> str:
    """A table of Markdown: each room, and the rooms it imports from with how many imports."""
    between: dict[str, Counter[str]] = {}
    for (importing, imported), count in arrows(ROOT).items():
        one, other = _room(importing), _room(imported)
        if one != other and not one.startswith(("docs", "setup")):
            between.setdefault(one, Counter())[other] += count
    rows = [
        f"| `{room}` | {', '.join(f'`{name}` {count}' for name, count in targets.most_common())} |"
        for room, targets in sorted(between.items())
    ]
    return "\n".join(["| room | imports from |", "|---|---|", *rows])
