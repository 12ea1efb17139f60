"""The matrix as tables for the docs: a row for each family, a column for each client, a table for each
kind of model.
"""

from collections.abc import Sequence
from pathlib import Path

from ....compress.model.gguf.families import ARCHITECTURES, WITHOUT
from .artifacts import Artifacts
from .cells import Cell, clients, concerns
from .families import FAMILIES
from .kinds import DECODE, ENCODER, READ_AND_WRITE, TAGGER

GGUF = "gguf"
EXACT, ROUNDED = 1e-4, 0.05  # float32 sums in another order; 4-bit products with rounded inputs
_NAMES = {"onnx": "standard bundle"}
_HEADINGS = (
    ("Decoders", DECODE),
    ("Encoders of text", (ENCODER, TAGGER)),
    ("Encoders of images, and towers", ("images", "image_tower", "text_tower")),
    ("Encoder–decoders", READ_AND_WRITE),
)


def cell_text(cell: Cell) -> str:
    """What a reader sees."""
    if cell.difference is None:
        return "refused"
    size = f"{cell.difference:.0e}".replace("e-0", "e-")
    if cell.tokens is False:
        return f"{size}, other tokens"
    return size if cell.difference <= EXACT else f"{size} (rounded)"


def tables(cells: Sequence[Cell]) -> str:
    """Markdown: a table for the families of a kind, below all what clients said, and what they are."""
    parts = []
    for heading, kinds in _HEADINGS:
        chosen = [cell for cell in cells if FAMILIES[cell.family][0] in kinds]
        if chosen:
            parts.append(f"### {heading}\n\n{table(chosen)}")
    parts += [_not_written(), _not_run(cells), _refusals(cells), _claims(cells), _clients(cells)]
    return "\n\n".join(filter(None, parts))


def table(cells: Sequence[Cell]) -> str:
    """Families down, clients across."""
    columns = sorted({(cell.artifact, cell.client) for cell in cells})
    families = list(dict.fromkeys(cell.family for cell in cells))
    heads = [f"{_shown(client)} ({_NAMES.get(artifact, artifact)})" for artifact, client in columns]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    known = {(cell.family, cell.artifact, cell.client): cell for cell in cells}
    for family in families:
        row = [known.get((family, *column)) for column in columns]
        shown = [
            cell_text(one) if one is not None else "not written" if _unwritten(family, artifact) else ""
            for one, (artifact, _) in zip(row, columns, strict=True)
        ]
        lines.append(f"| {family} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _unwritten(family: str, artifact: str) -> str:
    """Why an artifact is not written of a family, where that is known."""
    return WITHOUT.get(family, "") if artifact == GGUF else ""


def _not_written() -> str:
    """The families of each reason."""
    found: dict[str, list[str]] = {}
    for family in FAMILIES:
        if why := _unwritten(family, GGUF):
            found.setdefault(why, []).append(family)
    for family in FAMILIES:
        if family in ARCHITECTURES and (misses := ARCHITECTURES[family].misses):
            found.setdefault(f"llama.cpp misses the logits by {misses}", []).append(f"{family} in few bits")
    lines = [f"- {GGUF}, {', '.join(families)}: {why}" for why, families in found.items()]
    return "\n".join(["### Not written", "", *lines])


def _not_run(cells: Sequence[Cell]) -> str:
    """The families of each client and artifact that no cell is of."""
    known = {(cell.family, cell.artifact, cell.client) for cell in cells}
    left: dict[tuple[str, str], list[str]] = {}
    for name, module in clients().items():
        for family in FAMILIES:
            for form in concerns(module, Artifacts(Path(), family)):
                if (family, form, name) not in known:
                    left.setdefault((form, name), []).append(family)
    lines = [
        f"- {_shown(client)} ({_NAMES.get(artifact, artifact)}), {len(families)}: {', '.join(families)}"
        for (artifact, client), families in sorted(left.items())
    ]
    return "\n".join(["### Not run", "", *lines]) if lines else ""


def _refusals(cells: Sequence[Cell]) -> str:
    """What clients said, with the families that it was said of."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell.refusal:
            said.setdefault((cell.client, cell.artifact, cell.refusal.replace("`", "")), []).append(
                cell.family
            )
    lines = [
        f"- {_shown(client)} ({_NAMES.get(artifact, artifact)}), {', '.join(families)}: `{refusal}`"
        for (client, artifact, refusal), families in said.items()
    ]
    return "\n".join(["### Refusals", "", *lines]) if lines else ""


def _claims(cells: Sequence[Cell]) -> str:
    """What cards and manifests say, held against the cells."""
    said = [cell for cell in cells if cell.claimed is not None]
    if not said:
        return ""
    wrong = [cell for cell in said if cell.claimed and not passed(cell)]
    silent = [cell for cell in said if not cell.claimed and passed(cell)]
    named = sum(bool(cell.claimed) for cell in said)
    lines = [
        f"- cards or manifests name the client in {named} cells; it gives our answers in "
        f"{named - len(wrong)} of them",
        *[f"- named, and not so: {_place(cell)}" for cell in wrong],
        *[f"- not named, and it gives our answers: {_place(cell)}" for cell in silent],
    ]
    return "\n".join(["### Claims", "", *lines])


def passed(cell: Cell) -> bool:
    """Whether the client gives our answers, within what it rounds itself."""
    return cell.difference is not None and cell.difference <= ROUNDED


def _place(cell: Cell) -> str:
    return f"{_shown(cell.client)} ({_NAMES.get(cell.artifact, cell.artifact)}), {cell.family}"


def _clients(cells: Sequence[Cell]) -> str:
    """By client and packages, when its cells were measured, and what those took of which that is known."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.client, cell.packages), []).append(cell)
    lines = [
        f"- {_shown(client)}: {packages} ({', '.join(sorted({cell.date for cell in own}))}){_took(own)}"
        for (client, packages), own in sorted(found.items())
    ]
    return "\n".join(["### Clients and days", "", *lines])


def _took(cells: Sequence[Cell]) -> str:
    timed = [cell.seconds for cell in cells if cell.seconds is not None]
    return f"; {sum(timed):,.0f} s for {len(timed)} of {len(cells)} cells" if timed else ""


def _shown(client: str) -> str:
    return client.replace("_", "-")
