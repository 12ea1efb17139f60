"""The card of a bundle or checkpoint with what was measured of its groups: who loses more, the worst named.

A card lies in a directory whose manifest, bill of materials and signature have its hash, all from before
anything was measured. So the directory stays as it was written, and the card that says what was found is a
file of its own, for the model's repository.
"""

import re
from pathlib import Path
from typing import Any

from ...compress.model_card import CARD
from ...errors import InputError
from ...files.disk import disk_full_is_typed
from ...files.escaping import markdown
from ...files.storage import read_regular, read_text, write_atomic
from ..records.record import Measurement
from .subgroups.slice_table import UNITS, effects, number, shown_p, worst

HEADING = "## Who loses more"
_SECTION = re.compile(rf"^{HEADING}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BEFORE = "## Licences\n"


def card_beside(record: Path) -> Path:
    """The card of what is recorded in the run file ``record``."""
    return record.with_suffix(f".{CARD}")


def check_card(path: Path) -> None:
    """Refuse a file at ``path`` that is no card of a measurement."""
    if path.exists() and HEADING.encode() not in read_regular(path):
        raise InputError(f"{path} is no card of a measurement, and stays as it is", fix="move it away")


def write_measured_card(line: Measurement, directory: Path, path: Path) -> bool:
    """Write the card of ``directory`` to ``path``, with the slices of ``line``; False where it has no
    card.
    """
    if not (directory / CARD).is_file():
        return False
    text = with_slices(read_text(directory / CARD), line)
    with disk_full_is_typed(path):
        write_atomic(path, text.encode())
    return True


def with_slices(card: str, line: Measurement) -> str:
    """``card`` with the section on the slices of ``line``, in the place of one that it has."""
    rest = _SECTION.sub("", card).rstrip("\n") + "\n"
    before, licences, after = rest.partition(_BEFORE)
    return f"{before.rstrip()}\n\n{_section(line)}\n" + (f"\n{licences}{after}" if licences else "")


def _section(line: Measurement) -> str:
    report: dict[str, Any] = (line.compare or {})["slices"]
    found = worst(report)
    measured = [one for one in report["slices"] if one.get("groups")]
    rows = [_row(one) for one in measured]
    against = "the original" if line.baseline is None else markdown(line.baseline.name)
    text = (
        f"{HEADING}\n\n**{markdown(found[0].upper() + found[1:])}.** Measured against {against} by "
        f"`edgepress validate --slices`, {report['tests']} tests, corrected for being many; of each slice "
        "the group that loses most.\n\n"
        "| slice | loses most | its loss | 95 % interval | the others | items | alarm | seen from |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )
    left = [f"{Path(one['name']).name} ({one['why']})" for one in report["slices"] if "why" in one]
    text += (
        "\n\nSeen from: the loss of that group which the test finds four times in five. Of an association "
        "the others are its effect size before and after."
    )
    return text + (f"\n\nNot measured: {markdown('; '.join(left))}." if left else "")


def _row(one: dict[str, Any]) -> str:
    group, unit = max(one["groups"], key=lambda group: float(group["harm"])), one["unit"]
    low, high = group["ci95"] or (None, None)
    alarm = (
        "not tested"
        if group["p"] is None
        else f"{'yes' if group['alarm'] else 'no'} (p {shown_p(group['p'])})"
    )
    cells = [
        f"{Path(one['name']).name}: {UNITS[unit]}",  # of a file of the user's its name alone
        group["group"],
        number(group["harm"], unit),
        "–" if low is None else f"{number(low, unit)} to {number(high, unit)}",
        number(group["others"], unit) if unit != "effect" else effects(group),
        str(group["items"]),
        alarm,
        number(group["smallest_seen"], unit) if group["p"] is not None else "–",
    ]
    return "| " + " | ".join(map(markdown, cells)) + " |"
