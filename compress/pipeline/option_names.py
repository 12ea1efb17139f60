"""The keys that a recipe may give a pass, read from its source: importing it would import torch, which takes
seconds, and a misspelt key is said at once.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

from .pass_names import PACKAGE

_TRAINING = Path(__file__).parents[1] / "train" / "training_options.py"


def option_names(name: str) -> set[str]:
    """The keys of the pass in the file ``name``: its options, those that are fixed now, and where it learns
    also those of ``training``, which may stand beside them.
    """
    path = Path(str(import_module(PACKAGE).__file__)).parent / f"{name}.py"
    found = _keys(path, "PASS", set())
    return found | (training_names() if "training" in found else set())


def training_names() -> set[str]:
    """The keys of the section ``training``."""
    return _keys(_TRAINING, "TrainingOptions", set())


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _keys(path: Path, name: str, seen: set[tuple[Path, str]]) -> set[str]:
    """The option names that stand in what ``name`` is in the module at ``path``: a class with those that it
    comes from, or a mapping by option.
    """
    if (path, name) in seen:
        return set()
    seen.add((path, name))
    for node in _parsed(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(path, node, seen)
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_mapping(path, node, seen)
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return _of_mapping(path, node.value, seen)
        if isinstance(node, ast.ImportFrom) and node.level and any(own.name == name for own in node.names):
            module = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            return _keys(module.with_suffix(".py"), name, seen)
    return set()


def _of_class(path: Path, node: ast.ClassDef, seen: set[tuple[Path, str]]) -> set[str]:
    found = set[str]()
    for base in node.bases:
        found |= _of_mapping(path, base, seen)
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            if part.target.id == "fixed" and part.value is not None:
                found |= _of_mapping(path, part.value, seen)
            elif not ast.unparse(part.annotation).startswith("ClassVar"):
                found.add(part.target.id)
    return found


def _of_mapping(path: Path, node: ast.AST, seen: set[tuple[Path, str]]) -> set[str]:
    """The keys of the dictionaries in ``node``, and of what its names stand for."""
    found = set[str]()
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            found |= {
                key.value for key in part.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
        elif isinstance(part, ast.Name) and part.id != "Fixed":
            found |= _keys(path, part.id, seen)
    return found
