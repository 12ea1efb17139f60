"""The cells that were measured so far, a line each of a file of records: a run adds its own, in place of
what it measured before.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from ....files.storage import lines_of, write_atomic
from .cells import Cell
from .families import FAMILIES


def read_cells(path: Path) -> list[Cell]:
    """Those of ``path``; none where there is no file."""
    if not path.is_file():
        return []
    return [Cell(**json.loads(line)) for line in lines_of(path.read_text(encoding="utf-8"))]


def merged(kept: Iterable[Cell], measured: Iterable[Cell]) -> list[Cell]:
    """``measured`` in place of what ``kept`` has of the same family, artifact and client, in the order of the
    families; rows that are no families any more are left out.
    """
    known = {(cell.family, cell.client, cell.artifact): cell for cell in (*kept, *measured)}
    places = {family: place for place, family in enumerate(FAMILIES)}
    found = [cell for cell in known.values() if cell.family in places]
    return sorted(found, key=lambda cell: (places[cell.family], cell.client, cell.artifact))


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """Write ``cells`` to ``path``, whole or not at all."""
    lines = [json.dumps(cell.as_dict(), ensure_ascii=False) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
