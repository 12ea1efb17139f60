"""The command line of the matrix: make what is missing, run the cells, write the table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

from ....errors import MissingDependency
from ....storage import write_json
from ..peers.workspace import Workspace, setup, trouble
from ..study.page import put_section
from .artifacts import FAMILIES, LENGTHS, NEW_TOKENS, SCHEME, Artifacts
from .cells import Cell, clients, run_client
from .table import table

PAGE = Path("benchmarks/lab/results/interop.md")
TITLE = "Families in other clients"


def main() -> None:
    """Every cell, or those of the named clients and families."""
    parser = argparse.ArgumentParser(prog="python -m edgepress.benchmarks.lab.interop", description=__doc__)
    parser.add_argument("work", type=Path, help="where environments and artifacts are made")
    parser.add_argument("--clients", nargs="+", choices=list(clients()), default=list(clients()))
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    workspace, cells = Workspace(arguments.work), list[Cell]()
    chosen = {name: module for name, module in clients().items() if name in arguments.clients}
    for name, module in chosen.items():
        if trouble(workspace, name, module):
            try:
                setup(workspace, name, module)
            except MissingDependency as error:
                print(error, file=sys.stderr)
    families = [Artifacts(arguments.work / "artifacts", family) for family in arguments.families]
    for artifacts in families:
        artifacts.make()
    for name, module in chosen.items():
        if trouble(workspace, name, module) is None:
            for cell in run_client(workspace, name, module, families):
                cells.append(cell)
                print(cell, file=sys.stderr)
    write_json(arguments.work / "cells.json", [cell.as_dict() for cell in cells])
    whole = len(chosen) == len(clients()) and len(families) == len(FAMILIES)
    name = "Measured" if whole else f"Measured with {', '.join(chosen)} alone"
    put_section(arguments.page, TITLE, name, f"## {name}\n\n{_section(cells, chosen)}")


def _section(cells: list[Cell], chosen: dict[str, ModuleType]) -> str:
    packages = "; ".join(
        f"{name.replace('_', '-')}: {', '.join(getattr(module, 'NPM', module.PACKAGES))}"
        for name, module in chosen.items()
    )
    lengths = ", ".join(map(str, LENGTHS))
    return (
        f"Pico models in {SCHEME} (Q4_0 where a GGUF file is written, or the type that is named), rows of "
        f"{lengths} tokens, in one batch where a client takes batches, {NEW_TOKENS} greedy tokens. A "
        "number is the largest difference from our own answer, as a part of the largest number in it, where "
        "decoders gave the same tokens too; the ONNX graphs leave activations in float32.\n\n"
        f"{table(cells)}\n\nPackages: {packages}."
    )


if __name__ == "__main__":
    main()
