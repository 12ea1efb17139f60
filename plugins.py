"""Plug-ins are files: a folder is listed, a name is a file, a broken plug-in raises its own error.

A wheel adds one by an entry point, whose group is the folder's package and whose value is a module:
``[project.entry-points."edgepress.compress.passes"]`` ``my_pass = "my_wheel.my_pass"``. What edgepress has
under that name comes first. This one small loader serves passes, families, export formats, engines and
slices. No decorators, no tables to edit.
"""

import os
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import UnknownName


def names(package: str) -> list[str]:
    """The plug-ins of ``package`` (``edgepress.compress.passes``): its modules, without private ones, and
    those that other distributions add.
    """
    return sorted({*_files(package), *_outside(package)})


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import the plug-in ``name`` of ``package``; dashes and underscores are the same."""
    stem = name.replace("-", "_")
    if stem in _files(package):
        return import_module(f"{package}.{stem}")
    added = _outside(package)
    if stem not in added:
        raise UnknownName(kind, name, [choice.replace("_", "-") for choice in names(package)])
    return import_module(added[stem])


def _files(package: str) -> list[str]:
    folder = Path(str(import_module(package).__file__)).parent
    with os.scandir(folder) as files:  # a third of the time of Path.glob; it is asked often
        found = [file.name for file in files]
    return [name[:-3] for name in found if name.endswith(".py") and not name.startswith("_")]


@cache
def _outside(package: str) -> dict[str, str]:
    """The modules that other distributions add to ``package``, by name."""
    from importlib.metadata import entry_points  # only here: it costs a start

    return {found.name.replace("-", "_"): found.value for found in entry_points(group=package)}
