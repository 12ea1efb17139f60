"""Run a study: make, measure and time the rows of ``studies/NAME.yaml``, and write ``results/NAME.md``.

    python -m edgepress.benchmarks.lab.run_study NAME WORK [RESULTS] [--only ROW-OR-TABLE …] [--untimed]
        [--disturbed] [--rounds N] [--processes N] [--wikitext FILE] [--text NAME=FILE …] [--peers PLACE]
        [--pico]

Every row is made by the command line a user would type; what is made stays in WORK, so that an interrupted
study goes on where it was. Tables and rows that were left out are not written: their sections stay as they
are. Files for texts that no package carries are named by --text; where one is missing, what is measured on it
is left out.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...devices.state import disturbance, read_state
from ...errors import EdgepressError, UnknownName
from ...files.storage import sha256_json
from ..records.record import learning_curves
from .peers.lines import require_quiet
from .peers.workspace import Workspace
from .sealed import told
from .study.cells import Known, KnownRows, columns, described
from .study.interleaved import Rates, TimedWork, recorded
from .study.making import RowQuality, Workshop
from .study.page import write_table
from .study.pico import smallest
from .study.schema import HeldOut, Study, StudyRow, StudyTable, load_study, names
from .study.sources import MissingText, Sources
from .study.verdicts import verdicts

RESULTS = Path("benchmarks/lab/results")


@dataclass(frozen=True)
class Wanted:
    """What of a study is run, and how: as the command line has it.

    Attributes:
        only: names of rows or tables, or TABLE/ROW; empty: all.
        rounds, processes: of timing, instead of the study's own; no processes: in this one.
        disturbed: whether a table is written even of times that other work was in the way of.
        place: where the environments of other tools are.
    """

    only: tuple[str, ...] = ()
    untimed: bool = False
    rounds: int | None = None
    processes: int | None = None
    disturbed: bool = False
    place: Workspace | None = None
    command: str = "python -m edgepress.benchmarks.lab.run_study"


def run_study(study: Study, sources: Sources, work: Path, results: Path, wanted: Wanted) -> Path:
    """Run the tables of ``study`` and write its page; returns the page."""
    page = results / f"{study.name}.md"
    known = {name for table in study.tables for row in table.rows for name in called(table, row)}
    for name in wanted.only:
        if name not in known:
            raise UnknownName("row or table", name, known)
    for table in study.tables:
        chosen = [row for row in table.rows if not wanted.only or called(table, row) & set(wanted.only)]
        if chosen:
            shop = Workshop(table, sources, work / study.name, wanted.place)
            write_table(
                page, table.title, wanted.command, *_table(shop, chosen, wanted, study), page=study.title
            )
    return page


def called(table: StudyTable, row: StudyRow) -> set[str]:
    """The names by which ``--only`` takes in a row."""
    return {table.name, row.name, f"{table.name}/{row.name}"}


def _table(
    shop: Workshop, chosen: Sequence[StudyRow], wanted: Wanted, study: Study
) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, rows and notes of one table."""
    # All of them first: a child's peak of memory begins with what this process holds.
    for row in chosen:
        shop.checkpoint(row)
    made = [row for row in chosen if not shop.failure(row)]
    known = {row.name: Known(row, _qualities(shop, row)) for row in made}
    if not wanted.untimed:
        before = read_state()
        for name, rates in _rates(shop, made, wanted).items():
            known[name].rates = rates
        reasons = disturbance(before, read_state())[1] if shop.table.timing else []
        for one in known.values():
            one.profile = shop.profiled(one.row)
            reasons += [reason for line in one.profile for reason in line.validity.reasons]
        if not wanted.disturbed:
            require_quiet(list(dict.fromkeys(reasons)))
    rows = KnownRows(shop, list(known.values()))
    cells = columns(rows)
    table = [[cell(known[row.name]) if row.name in known else "–" for _, cell in cells] for row in chosen]
    for row, line in zip(chosen, table, strict=True):
        if shop.failure(row):
            line[0] = f"{described(row)}: not run: {shop.failure(row)}"
    texts = [one.text if isinstance(one.text, str) else str(one.text["make"]) for one in shop.table.held_out]
    notes = [*study.notes, *shop.table.notes, *([told(texts)] if texts else []), *verdicts(rows)]
    notes += [note for row in made for note in _curves(shop, row)] if shop.table.curves else []
    notes += _tools(shop, made)
    return [title for title, _ in cells], table, notes


def _qualities(shop: Workshop, row: StudyRow) -> list[tuple[HeldOut, RowQuality | None]]:
    """The quality of a row on each text; None where the text is missing, or it would be compared with
    itself.
    """
    found: list[tuple[HeldOut, RowQuality | None]] = []
    for held_out in shop.table.held_out:
        try:
            itself = held_out.against == row.name
            found.append((held_out, None if itself else shop.quality(row, held_out)))
        except MissingText as error:
            print(f"{row.name}: {error}", file=sys.stderr)
            found.append((held_out, None))
    return found


def _rates(shop: Workshop, rows: Sequence[StudyRow], wanted: Wanted) -> dict[str, dict[str, Rates]]:
    """By row and baseline: the rates of both, timed together."""
    timing = shop.table.timing
    if timing is None:
        return {}
    rounds = timing.rounds if wanted.rounds is None else wanted.rounds
    processes = timing.processes if wanted.processes is None else wanted.processes
    work = TimedWork(tuple(timing.prompts), timing.new_tokens)
    timed = {row.name: shop.bundle(row) for row in rows if row.timed}
    bundles = {name: shop.bundle(shop.rows[name]) for name in timing.baseline} | timed
    folder = shop.folder(rows[0])
    found: dict[str, dict[str, Rates]] = {}
    groups = [[*timing.baseline, name] for name in timed] if timing.pairs else [list(bundles)]
    for group in groups:
        together = {name: bundles[name] for name in dict.fromkeys(group)}
        file = folder / f"rates-{sha256_json([sorted(together), rounds, processes])[:8]}.json"
        rates = recorded(file, together, work, rounds, processes)
        for name in together:
            if name in timed and (not timing.pairs or name == group[-1]):
                found[name] = dict.fromkeys(timing.baseline, rates)
    return found


def _tools(shop: Workshop, rows: Sequence[StudyRow]) -> list[str]:
    """What other tools ran as, as a note; the versions below a table are of this environment."""
    found: dict[str, str] = {}
    for row in rows:
        found |= shop.cost(row).get("versions", {})
    listed = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    return [f"Other tools: {listed}."] if found else []


def _curves(shop: Workshop, row: StudyRow) -> list[str]:
    """The held-out loss of each pass of a row that learned, as a note."""
    return [
        f"{row.name}: {curve.step}, {curve.measure} per held-out token by training tokens: "
        + ", ".join(f"{at:,} → {loss:.4f}" for at, loss in zip(curve.tokens, curve.losses, strict=True))
        + f"; kept: {curve.tokens[curve.kept]:,}."
        for curve in learning_curves(shop.steps(row))
    ]


def _pairs(given: Sequence[str]) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=names())
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--only", nargs="+", metavar="ROW-OR-TABLE", default=[])
    parser.add_argument("--untimed", action="store_true", help="measure quality alone")
    parser.add_argument(
        "--disturbed", action="store_true", help="write times that other work was in the way of"
    )
    parser.add_argument("--rounds", type=int, help="of each process that times")
    parser.add_argument("--processes", type=int, help="that time; 0: this one does")
    parser.add_argument("--wikitext", type=Path, help="WikiText-2 test as one text file")
    parser.add_argument(
        "--text", nargs="+", metavar="NAME=FILE", default=[], help="a text that the study names"
    )
    parser.add_argument("--model", nargs="+", metavar="NAME=MODEL", default=[], help="instead of a subject")
    parser.add_argument("--peers", type=Path, metavar="PLACE", help="where the environments of tools are")
    parser.add_argument("--pico", action="store_true", help="each kind of row once, at the smallest size")
    return parser


def _command(given: argparse.Namespace) -> str:
    """The command line as it was typed, of files the names."""
    words = [given.name, "WORK", *(["--only", *given.only] if given.only else [])]
    words += [f"--{name}" for name in ("untimed", "pico", "disturbed") if getattr(given, name)]
    for name in ("rounds", "processes"):
        words += [] if getattr(given, name) is None else [f"--{name}", str(getattr(given, name))]
    words += ["--wikitext", "FILE"] if given.wikitext else []
    for name, what in (("text", "FILE"), ("model", "MODEL")):
        named = [f"{key}={what}" for key in _pairs(getattr(given, name))]
        words += [f"--{name}", *named] if named else []
    words += ["--peers", "PLACE"] if given.peers else []
    return f"python -m edgepress.benchmarks.lab.run_study {shlex.join(words)}"


def main() -> None:
    """The command line."""
    given = _parser().parse_args()
    texts = {name: Path(file) for name, file in _pairs(given.text).items()}
    texts |= {"wikitext": given.wikitext} if given.wikitext else {}
    place = None if given.peers is None else Workspace(given.peers.absolute())
    only = tuple(given.only)
    how = given.rounds, given.processes, given.disturbed
    wanted = Wanted(only, given.untimed, *how, place, _command(given))
    try:
        study = load_study(given.name)
        sources = Sources(given.work / "sources", _pairs(given.model), texts, pico=given.pico)
        page = run_study(smallest(study) if given.pico else study, sources, given.work, given.results, wanted)
    except EdgepressError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(page)


if __name__ == "__main__":
    main()
