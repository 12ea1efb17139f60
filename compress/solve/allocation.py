"""``Allocation``: which scheme each layer gets: a mapping that can be read, edited and used again.

As YAML: the full name of a linear, a colon, the name of a scheme. Shown as a strip: a line a kind of linear,
a digit of bits a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from ...errors import RecipeError
from ...files.storage import read_json, read_text
from ...files.yaml_safe import load_yaml
from ..model.anatomy import Anatomy
from ..numbers.scheme import Scheme

MANIFEST = "edgepress.json"

Allocation = dict[str, str]
# By linear and scheme name: estimated damage.
Costs = dict[str, dict[str, FiniteFloat]]


def read_allocation(value: Any) -> Any:
    """A mapping as it is; a path to a YAML file, or to a checkpoint that an allocation made, as the mapping
    it holds.
    """
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.is_dir() and (path / MANIFEST).is_file():
        return _kept(path, "allocation")
    try:
        data = load_yaml(read_text(path), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the plan {path}", why=str(error)) from None
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{path} is no plan", fix="a plan has one line a layer: its name, a colon, a scheme"
        )
    return dict(data)


def read_costs(value: Any) -> Any:
    """A mapping as it is; a path to a checkpoint that an allocation made, as the costs that it measured."""
    return _kept(Path(value), "costs") if isinstance(value, str) else value


def _kept(checkpoint: Path, what: str) -> dict[str, Any]:
    """What an allocation left in the manifest of what it made."""
    manifest = read_json(checkpoint / MANIFEST) if (checkpoint / MANIFEST).is_file() else None
    steps = manifest.get("steps") if isinstance(manifest, Mapping) else None
    for step in steps if isinstance(steps, list) else []:
        details = step.get("details") if isinstance(step, Mapping) else None
        found = details.get(what) if isinstance(details, Mapping) else None
        if isinstance(found, Mapping):
            return dict(found)
    fix = (
        "give a YAML file of layers and schemes"
        if what == "allocation"
        else "leave out costs: they are measured"
    )
    raise RecipeError(f"{checkpoint} was not made by an allocation that left its {what}", fix=fix)


def strip(anatomy: Anatomy, schemes: Mapping[str, Scheme]) -> list[str]:
    """The widths in text: a line for each kind of linear, a digit of bits for each block, first to last.
    ``.`` is a layer in float, a space a block that has no such layer.
    """
    kinds = dict.fromkeys(linear.role for block in anatomy.blocks for linear in block.linears())
    digits = {kind: [" "] * len(anatomy.blocks) for kind in kinds}
    for position, block in enumerate(anatomy.blocks):
        for linear in block.linears():
            scheme = schemes.get(linear.name)
            digits[linear.role][position] = "." if scheme is None else str(scheme.bits)
    width = max(map(len, kinds))
    return [f"{kind.rjust(width)} {''.join(bits)}" for kind, bits in digits.items()]


def mixed_strip(anatomy: Anatomy, schemes: Mapping[str, Scheme]) -> list[str]:
    """:func:`strip` of a model whose layers have different widths; empty when all have the same."""
    widths = {scheme.bits if (scheme := schemes.get(one.name)) else None for one in anatomy.linears()}
    return strip(anatomy, schemes) if len(widths) > 1 else []
