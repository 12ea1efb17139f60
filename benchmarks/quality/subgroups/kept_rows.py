"""Rows that slices have measured, kept beside the run file until the line is written: a killed run goes on
after the last of them.

A line of the file holds rows of numbers, by slice and by the place of the first; one that was torn by the
kill, or that another run wrote, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ....files.disk import disk_full_is_typed, make_folder
from ....files.storage import append_line, lines_of, sha256_json

Row = Sequence[float]


class KeptRows:
    """The rows of the run that ``identity`` names; ``record`` is its run file, None keeps nothing."""

    def __init__(self, record: Path | None = None, identity: str = "") -> None:
        self._file = None if record is None else record.with_name(f"{record.name}.slices")
        self._identity = identity

    def of(self, name: str, items: Sequence[object]) -> SliceRows:
        """Those of the slice ``name``, which has these ``items``."""
        return SliceRows(self._file, sha256_json([self._identity, name, [repr(item) for item in items]]))

    def drop(self) -> None:
        """Forget them all: what they were for is written."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class SliceRows:
    """The ``rows`` of one slice, in the order of its items."""

    def __init__(self, file: Path | None, key: str) -> None:
        self._file, self._key = file, key
        self.rows: list[Row] = []
        for entry in _entries(file):
            if entry.get("of") == key and entry.get("from") == len(self.rows):
                self.rows += entry["rows"]

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the next ``rows``."""
        entry = {"of": self._key, "from": len(self.rows), "rows": [list(row) for row in rows]}
        self.rows += rows
        if self._file is not None:
            make_folder(self._file.parent)
            with disk_full_is_typed(self._file):
                append_line(self._file, json.dumps(entry))


def _entries(file: Path | None) -> Iterator[dict[str, Any]]:
    if file is None or not file.is_file():
        return
    for line in lines_of(file.read_text(encoding="utf-8", errors="replace")):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
