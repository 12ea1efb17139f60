"""The table of what exporters proved: a row a bundle, a column a part of the proof, from the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....storage import read_json
from .results_page import write_table


def numbers_of(bundle: Path) -> dict[str, str]:
    """The parts of a bundle's proof that hold numbers, each in a line."""
    parity: dict[str, Any] = read_json(bundle / "manifest.json")["parity"]
    parts = {name: _brief(part) for name, part in sorted(parity.items()) if isinstance(part, dict)}
    return {name: line for name, line in parts.items() if line}


def _brief(part: Mapping[str, Any]) -> str:
    numbers = {name: number for name, number in part.items() if isinstance(number, int | float)}
    return ", ".join(f"{name} {number:.4g}" for name, number in sorted(numbers.items()))


def write_parity(path: Path, model: str, bundles: Mapping[str, Path], command: str) -> None:
    """Write the table of ``bundles``, by the label of their row."""
    proofs = {label: numbers_of(bundle) for label, bundle in bundles.items()}
    names = sorted({name for proof in proofs.values() for name in proof})
    rows = [[label, *(proof.get(name, "–") for name in names)] for label, proof in proofs.items()]
    note = "From each bundle's manifest: differences of logits or embeddings, bounds beside them."
    write_table(path, f"Export parity of {model}", command, ["scheme", *names], rows, [note])
