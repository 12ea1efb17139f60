"""The matrix as a table for the docs: a row for each family, a column for each client."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import Cell

EXACT = 1e-4  # float32 sums in another order
_NAMES = {"onnx": "standard bundle"}


def cell_text(cell: Cell) -> str:
    """What a reader sees."""
    if cell.difference is None:
        return "refused"
    size = f"{cell.difference:.0e}".replace("e-0", "e-")
    if cell.tokens is False:
        return f"{size}, other tokens"
    return size if cell.difference <= EXACT else f"{size} (rounded)"


def table(cells: Sequence[Cell]) -> str:
    """Markdown: families down, clients across, refusals below."""
    columns = sorted({(cell.artifact, cell.client) for cell in cells})
    families = list(dict.fromkeys(cell.family for cell in cells))
    heads = [f"{client.replace('_', '-')} ({_NAMES.get(artifact, artifact)})" for artifact, client in columns]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    known = {(cell.family, cell.artifact, cell.client): cell for cell in cells}
    for family in families:
        row = [known.get((family, *column)) for column in columns]
        lines.append(f"| {family} | {' | '.join('' if one is None else cell_text(one) for one in row)} |")
    said = dict.fromkeys((cell.client, cell.refusal) for cell in cells if cell.refusal)
    notes = [f"- {client.replace('_', '-')}: `{refusal.replace('`', '')}`" for client, refusal in said]
    return "\n".join([*lines, *(["", "Refusals:", "", *notes] if notes else [])])
