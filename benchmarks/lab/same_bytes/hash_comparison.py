"""Two records against each other: what is the same, and what differs and where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..study.page import write_table

Record = dict[str, dict[str, str]]

SHOWN = 12
COMMAND = "python -m edgepress.benchmarks.lab.same_bytes compare --before … --after … --page …"
HEADER = ("group", "cases", "of them refused", "values compared", "values that differ")
GROUPS = {
    "keys": "recipe keys: every option of every pass",
    "command": "command line: exit codes, error codes, names in JSON",
    "single": "single arguments, texts and export options",
    "demo": "demo models",
}


@dataclass
class Group:
    """Counts of the cases of one model, or of one kind."""

    cases: int = 0
    refused: int = 0
    compared: int = 0
    differing: int = 0


@dataclass
class Comparison:
    """What was held against what.

    Attributes:
        groups: counts by the part of a case's name before the slash.
        differing: for each case that is not the same, the values that differ, as lines.
    """

    groups: dict[str, Group] = field(default_factory=dict)
    differing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The counts in a line."""
        cases = sum(group.cases for group in self.groups.values())
        compared = sum(group.compared for group in self.groups.values())
        same = cases - len(self.differing)
        return (
            f"{same} of {cases} cases are the same, {len(self.differing)} differ; {compared} values compared"
        )


def compare(before: Record, after: Record) -> Comparison:
    """Every case of both; one that only one of them has differs."""
    found = Comparison()
    for name in sorted(before.keys() | after.keys()):
        group = found.groups.setdefault(name.partition("/")[0], Group())
        one, two = before.get(name), after.get(name)
        if one is None or two is None:
            lines = [f"only {'before' if two is None else 'after'}"]
        else:
            lines = _lines(one, two)
            group.compared += len(one.keys() | two.keys())
            group.refused += any(value.startswith("refused") for value in one.values())
        group.cases += 1
        group.differing += len(lines)
        if lines:
            found.differing[name] = lines
    return found


def _lines(before: dict[str, str], after: dict[str, str]) -> list[str]:
    lines = [f"{key} is gone" for key in sorted(before.keys() - after.keys())]
    lines += [f"{key} is new" for key in sorted(after.keys() - before.keys())]
    for key in sorted(before.keys() & after.keys()):
        one, two = before[key], after[key]
        if one != two:
            words = any(len(value) != 64 for value in (one, two))  # that is: no hashes
            lines.append(f"{key} differs" + (f": {one} before, {two} after" if words else ""))
    return lines


def compare_records(before: Sequence[Path], after: Sequence[Path], page: Path | None = None) -> int:
    """Print the comparison, and write it as a page of results; 1 where anything differs."""
    found = compare(_read(before), _read(after))
    for name, lines in found.differing.items():
        more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        print("\n  ".join([name, *lines[:SHOWN], *more]))
    counts = Counter(line for lines in found.differing.values() for line in lines)
    for line, count in counts.most_common(SHOWN):
        print(f"{count} × {line}")
    print(found.summary)
    if page is not None:
        _write_page(page, found)
    return 1 if found.differing else 0


def _read(paths: Sequence[Path]) -> Record:
    merged: Record = {}
    for path in paths:
        merged |= json.loads(path.read_text(encoding="utf-8"))
    return merged


def _write_page(page: Path, found: Comparison) -> None:
    rows = [
        [GROUPS.get(name, name), *map(str, (group.cases, group.refused, group.compared, group.differing))]
        for name, group in found.groups.items()
    ]
    differing = [f"{name}: {'; '.join(lines[:SHOWN])}" for name, lines in found.differing.items()]
    notes = [f"{found.summary}.", *differing]
    write_table(page, "The same bytes before and after", COMMAND, HEADER, rows, notes)
