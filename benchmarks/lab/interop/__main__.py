"""The command line of the matrix: make what is missing, run the cells, write the table."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ....errors import MissingDependency
from ..peers.workspace import Workspace, setup, trouble
from ..study.page import put_section
from .artifacts import LENGTHS, NEW_TOKENS, SCHEME, Artifacts
from .cells import Cell, clients, concerns, run_client
from .families import FAMILIES
from .kept_cells import merged, read_cells, write_cells
from .not_measured import NOT_MEASURED
from .table import tables

PAGE, CELLS = Path("benchmarks/lab/results/interop.md"), Path("raw/interop.jsonl")
TITLE = "Families in other clients"
NAME, OTHERS = "Measured", "Not measured"


def main() -> None:
    """Every cell, or those of the named clients and families; the others stay as they were measured."""
    parser = argparse.ArgumentParser(prog="python -m edgepress.benchmarks.lab.interop", description=__doc__)
    parser.add_argument("work", type=Path, help="where environments and artifacts are made")
    parser.add_argument("--clients", nargs="*", choices=list(clients()), default=list(clients()))
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    workspace = Workspace(arguments.work)
    families = [Artifacts(arguments.work / "artifacts", family) for family in arguments.families]
    kept = arguments.page.parent / CELLS
    for name in arguments.clients:
        for cell in _cells(workspace, name, families):
            write_cells(kept, merged(read_cells(kept), [cell]))  # what is measured is not lost with the next
            print(cell, file=sys.stderr)
    put_section(arguments.page, TITLE, NAME, f"## {NAME}\n\n{_section(read_cells(kept))}")
    others = "\n".join(f"- {name}: {reason}" for name, reason in NOT_MEASURED.items())
    put_section(arguments.page, TITLE, OTHERS, f"## {OTHERS}\n\n{others}")


def _cells(workspace: Workspace, name: str, families: list[Artifacts]) -> Iterator[Cell]:
    """What the client says of the ``families`` that concern it; nothing where it cannot be installed."""
    module = clients()[name]
    if trouble(workspace, name, module):
        try:
            setup(workspace, name, module)
        except MissingDependency as error:
            print(error, file=sys.stderr)
            return
    chosen = [artifacts for artifacts in families if concerns(module, artifacts)]
    for artifacts in chosen:
        artifacts.make()
    yield from run_client(workspace, name, module, chosen)


def _section(cells: list[Cell]) -> str:
    lengths = ", ".join(map(str, LENGTHS))
    return (
        f"Pico models in {SCHEME} (Q4_0 where a GGUF file is written, or the type that is named), rows of "
        f"{lengths} tokens, three images, or three sounds, in one batch where a client takes batches, "
        f"{NEW_TOKENS} greedy tokens. A number is the largest difference from our own answer, as a part of "
        "the largest number in it, where the same tokens were written too; the ONNX graphs leave activations "
        "in float32. lm-eval's numbers are likelihoods of continuations. WebGPU in software is SwiftShader, "
        "with a family for each shape of graph: it says nothing of speed. In mixtures of GGUF's own types "
        "each token goes to all experts, so that what llama.cpp rounds changes none that is chosen. Encoders "
        "and T5 in GGUF have tokenizers of the kinds that they are published with. A cell "
        "is empty where the client does not take the kind of model, the form is not written of it, or it was "
        "not run, and those are listed below.\n\n"
        f"{tables(cells)}"
    )


if __name__ == "__main__":
    main()
