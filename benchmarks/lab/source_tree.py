"""Figures and a picture of the source tree: files, lines, options, and imports between rooms.

    python -m edgepress.benchmarks.lab.source_tree figures CHECKOUT        # one JSON document
    python -m edgepress.benchmarks.lab.source_tree picture CHECKOUT FLOOR  # for Graphviz: rooms and imports

Made to compare two checkouts. A checkout is read as text; nothing of it is run but ``recipe schema``, for its
passes and options.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAB = ("benchmarks/lab/", "benchmarks/checks/", "benchmarks/peers/")
PACKAGE = "edgepress"


def sources(root: Path) -> list[str]:
    """Paths of the tracked Python files outside the tests, from the root."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if not name.startswith("tests/")]


def module_of(name: str) -> str:
    """The dotted name below the package of a file."""
    return name.removesuffix(".py").removesuffix("/__init__").removesuffix("__init__").replace("/", ".")


def imports(name: str, text: str, known: dict[str, str]) -> Iterator[str]:
    """Files of the package that a file imports, in functions too, relative imports alone."""
    package = name.split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            target = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                found = known.get(".".join([*target, alias.name])) or known.get(".".join(target))
                if found and found != name and not found.endswith("__init__.py"):
                    yield found


def arrows(root: Path) -> dict[tuple[str, str], int]:
    """``(importing file, imported file)`` with how often."""
    names = sources(root)
    known = {module_of(name): name for name in names}
    found: Counter[tuple[str, str]] = Counter()
    for name in names:
        text = (root / name).read_text(encoding="utf-8")
        found.update((name, target) for target in imports(name, text, known))
    return dict(found)


def options(root: Path) -> dict[str, int]:
    """How many keys a recipe may set for each pass, by the schema that the checkout prints."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PACKAGE).symlink_to(root.resolve(), target_is_directory=True)
        done = subprocess.run(
            [sys.executable, "-m", PACKAGE, "recipe", "schema"],
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    schema = json.loads(done.stdout)
    passes = schema["properties"]["passes"]["items"]["oneOf"]
    found = {one["properties"]["pass"]["const"]: len(one["properties"]) - 1 for one in passes}
    training = schema["properties"].get("training")
    return found if training is None else found | {"training": len(properties(training, schema))}


def properties(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of a node of a schema, through references and ``anyOf``."""
    if "$ref" in node:
        return properties(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    for one in node.get("anyOf", []):
        if found := properties(one, schema):
            return found
    return dict(node.get("properties", {}))


def figures(root: Path) -> dict[str, Any]:
    """The counts of a checkout; ``product`` leaves the lab out."""
    names = sources(root)
    lines = {name: len((root / name).read_text(encoding="utf-8").splitlines()) for name in names}
    product = [name for name in names if not name.startswith(LAB)]
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for importing, imported in arrows(root):
        readers[imported].add(importing)
    folders = Counter(str(Path(name).parent) for name in names if not name.endswith("__init__.py"))
    pages = [*root.glob("benchmarks/results/*.md"), *root.glob("benchmarks/lab/results/*.md")]
    counts = options(root)
    return {
        "files": len(names),
        "product files": len(product),
        "lines": sum(lines.values()),
        "product lines": sum(lines[name] for name in product),
        "lab lines": sum(lines.values()) - sum(lines[name] for name in product),
        "passes": len([name for name in counts if name != "training"]),
        "options": sum(counts.values()),
        "modules with one reader": len([name for name in product if len(readers[name]) == 1]),
        "most modules in a folder": dict(folders.most_common(6)),
        "pages of results": len(pages),
        "files over 250 lines": len([name for name in product if lines[name] > 250]),
    }


def picture(root: Path, floor: str) -> str:
    """Graphviz source: the rooms of a floor and the imports between them; a file in no room is its own."""

    def room(name: str) -> str:
        parts = name.split("/")
        return parts[1] if len(parts) > 2 else parts[1].removesuffix(".py")

    below = [
        name for name in sources(root) if name.startswith(f"{floor}/") and not name.endswith("__init__.py")
    ]
    size = Counter(room(name) for name in below)
    between: Counter[tuple[str, str]] = Counter()
    for (importing, imported), count in arrows(root).items():
        inside = importing in below and imported in below and room(importing) != room(imported)
        between.update({(room(importing), room(imported)): count} if inside else {})
    nodes = [f'  "{name}" [label="{name}\\n{count}"];' for name, count in sorted(size.items())]
    edges = [f'  "{one}" -> "{other}" [label="{count}"];' for (one, other), count in sorted(between.items())]
    head = f'digraph "{floor}" {{\n  rankdir=TB; node [shape=box, fontname="sans-serif"];'
    return "\n".join([head, *nodes, *edges, "}"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("figures", "picture"))
    parser.add_argument("checkout", type=Path)
    parser.add_argument("floor", nargs="?", default="compress")
    given = parser.parse_args()
    if given.what == "figures":
        print(json.dumps(figures(given.checkout), indent=1))
    else:
        print(picture(given.checkout, given.floor))


if __name__ == "__main__":
    main()
