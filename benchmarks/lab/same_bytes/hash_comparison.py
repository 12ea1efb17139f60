"""Two records against each other: what is the same, and what differs and where.

Two kinds of differences are held apart. How a recipe is written down is one: options that moved into a
section and passes that were merged have other words in the fields :data:`WORDS` of manifests, as names among
the numbers of others, and in what is derived from them. All else is the other: bytes, numbers, exit codes,
refusals. Only that fails a comparison, but for the refusal of recipes that set an option which became a
constant.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..study.page import write_table
from .file_hashes import LOG, MANIFESTS, NAMED, WITHOUT_NAMES

Record = dict[str, dict[str, str]]

SHOWN = 12
COMMAND = "python -m edgepress.benchmarks.lab.same_bytes compare --before … --after … --page …"
HEADER = (
    "group",
    "cases",
    "of them refused",
    "values compared",
    "values that differ",
    "recipe written in other words",
)
GROUPS = {
    "keys": "recipe keys: every option of every pass",
    "command": "command line: exit codes, error codes, names in JSON",
    "single": "single arguments, texts and export options",
    "demo": "demo models",
    "constants": "options that became constants, with other values",
}
# How a recipe is refused that gives an option another value than the constant that it became.
CONSTANT = {"compress": "refused E-RECIPE, exit 2"}
# Fields that hold the recipe, its hash, or a name made of its passes.
WORDS = ("recipe", "recipe_sha256", "run.key", "source.recipe", "scheme")
# Made from the fields of a manifest, each of which is compared by itself; `files` lists files that are too.
DERIVED = (*MANIFESTS, "README.md", *(f"{name}#files" for name in MANIFESTS))


@dataclass
class Group:
    """Counts of the cases of one model, or of one kind."""

    cases: int = 0
    refused: int = 0
    compared: int = 0
    differing: int = 0
    reworded: int = 0


@dataclass
class Comparison:
    """What was held against what.

    Attributes:
        groups: counts by the part of a case's name before the slash.
        differing: for each case that is not the same, the values that differ, as lines.
        reworded: the cases of which only the recipe's words differ.
        constant: the cases that are refused since an option became a constant.
    """

    groups: dict[str, Group] = field(default_factory=dict)
    differing: dict[str, list[str]] = field(default_factory=dict)
    reworded: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The counts in a line."""
        cases = sum(group.cases for group in self.groups.values())
        compared = sum(group.compared for group in self.groups.values())
        return (
            f"{cases} cases, {compared} values: {len(self.differing)} cases differ; in {len(self.reworded)} "
            f"others the recipe is written in other words; {len(self.constant)} set what is a constant now"
        )


def compare(before: Record, after: Record) -> Comparison:
    """Every case of both; one that only one of them has differs."""
    found = Comparison()
    for name in sorted(before.keys() | after.keys()):
        group = found.groups.setdefault(name.partition("/")[0], Group())
        group.cases += 1
        one, two = before.get(name), after.get(name)
        if one is None or two is None:
            found.differing[name] = [f"only {'before' if two is None else 'after'}"]
            group.differing += 1
            continue
        if name.startswith("constants/") and two == CONSTANT:
            found.constant.append(name)
            continue
        changed = list(_changed(one, two))
        words = _reworded(changed, one, two)
        lines = [_line(key, one.get(key), two.get(key)) for key in changed if key not in words]
        group.compared += len(one.keys() | two.keys())
        group.refused += any(value.startswith("refused") for value in one.values())
        group.differing += len(lines)
        group.reworded += len(words)
        if lines:
            found.differing[name] = lines
        elif words:
            found.reworded.append(name)
    return found


def _changed(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Values that differ; one without names is asked for only where the one with them differs."""
    for key in sorted(before.keys() | after.keys()):
        if not key.endswith(WITHOUT_NAMES) and before.get(key) != after.get(key):
            yield key


def _reworded(changed: list[str], before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Of the values that changed, those in which nothing else can have than what the recipe is called."""
    found = set()
    for key in changed:
        file, _, name = key.rpartition("/")[2].partition("#")
        nameless = key + WITHOUT_NAMES
        same = nameless in before and before[nameless] == after.get(nameless)
        named = (file in MANIFESTS and name in NAMED) or key.rpartition("/")[2] == LOG
        if (file in MANIFESTS and name in WORDS) or (named and same):
            found.add(key)
    derived = {key for key in changed if key.rpartition("/")[2] in DERIVED and key in before and key in after}
    return found | derived if found and not set(changed) - found - derived else found


def _line(key: str, before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return f"{key} is {'gone' if after is None else 'new'}"
    words = any(len(value) != 64 for value in (before, after))  # that is: no hashes
    return f"{key} differs" + (f": {before} before, {after} after" if words else "")


def compare_records(before: Sequence[Path], after: Sequence[Path], page: Path | None = None) -> int:
    """Print the comparison, and write it as a page of results; 1 where more than words differs."""
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.partition("/")[2] for name in names) or "none"


def _write_page(page: Path, found: Comparison) -> None:
    rows = []
    for name, group in found.groups.items():
        counts = (group.cases, group.refused, group.compared, group.differing, group.reworded)
        rows.append([GROUPS.get(name, name), *map(str, counts)])
    differing = [f"{name}: {'; '.join(lines[:SHOWN])}" for name, lines in found.differing.items()]
    notes = [
        f"{found.summary}.",
        f"Words of a recipe: the fields {', '.join(WORDS)} of manifests, names of passes in their "
        f"{' and '.join(NAMED)} and in {LOG}, and what is made from these ({', '.join(DERIVED[:3])}).",
        f"Refused, since an option in them became a constant: {_listed(found.constant)}.",
        *differing,
    ]
    write_table(page, "The same bytes before and after", COMMAND, HEADER, rows, notes)
