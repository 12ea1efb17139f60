"""``edgepress doctor``: what is installed, what is missing or clashes, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import MissingDependency
from ...terminal.progress import Terminal
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...devices.checks import Finding

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command("doctor", cls=Verb)
@output
def command(terminal: Terminal) -> int:
    """Check the installation and say how to fix it. Exits with 4 when something fails."""
    from ...devices.checks import examine

    findings = examine()
    failed = any(finding.status == "fail" for finding in findings)
    shown = [finding for finding in findings if not terminal.quiet or finding.status != "ok"]
    document = {"ok": not failed, "findings": [finding.as_dict() for finding in findings]}
    terminal.document(document, None if terminal.as_json else _table(shown))
    return MissingDependency.exit_code if failed else 0


def _table(findings: list[Finding]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 1))
    for finding in findings:
        mark, colour = _MARKS[finding.status]
        text = Text(finding.detail)
        if finding.fix:
            text.append(f"\n→ {finding.fix}", style="bold")
        table.add_row(Text(mark, style=colour), finding.check, text)
    return table
