"""``Allocation``: which scheme each layer gets: a mapping that can be read, edited and used again.

As YAML: the full name of a linear, a colon, the name of a scheme. Shown as a strip: a row a block, a column a
kind of linear, a digit of bits a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..storage import read_json
from ..yaml_safe import load_yaml
from .anatomy import Anatomy
from .scheme import Scheme

MANIFEST = "edgepress.json"

Allocation = dict[str, str]


def read_allocation(value: Any) -> Any:
    """A mapping as it is; a path to a YAML file, or to a checkpoint that an allocation made, as the mapping
    it holds.

    Raises:
        RecipeError: the file is missing, or holds no allocation.
    """
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.is_dir() and (path / MANIFEST).is_file():
        for step in read_json(path / MANIFEST).get("steps", []):
            found = step.get("details", {}).get("allocation") if isinstance(step, Mapping) else None
            if isinstance(found, Mapping):
                return dict(found)
        raise RecipeError(
            f"{path} was not made by an allocation", fix="give a YAML file of layers and schemes"
        )
    try:
        data = load_yaml(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the plan {path}", why=str(error)) from None
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{path} is no plan", fix="a plan has one line a layer: its name, a colon, a scheme"
        )
    return dict(data)


def strip(anatomy: Anatomy, schemes: Mapping[str, Scheme]) -> list[str]:
    """The widths in text, one line a block under a line of headings; ``.`` where a layer is in float."""
    rows = []
    for block in anatomy.blocks:
        cells: list[tuple[str, str]] = []
        for linear in block.linears():
            scheme = schemes.get(linear.name)
            cells.append((linear.role, "." if scheme is None else str(scheme.bits)))
        rows.append((str(block.index), cells))
    width = max(len(role) for _, cells in rows for role, _ in cells) + 1
    heading = "block ".rjust(8) + "".join(role.rjust(width) for role, _ in rows[0][1])
    return [
        heading,
        *(f"{name} ".rjust(8) + "".join(bits.rjust(width) for _, bits in cells) for name, cells in rows),
    ]
