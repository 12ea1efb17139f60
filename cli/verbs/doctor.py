"""``edgepress doctor``: what is installed, what is missing or clashes, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import MissingDependency
from ...terminal import Terminal

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...devices.checks import Finding

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is not in order.")
def command(as_json: bool, quiet: bool) -> int:
    """Check the installation and say how to fix it. Exits with 4 when something fails."""
    from ...devices.checks import examine

    findings = examine()
    failed = any(finding.status == "fail" for finding in findings)
    shown = [finding for finding in findings if not quiet or finding.status != "ok"]
    document = {"ok": not failed, "findings": [finding.as_dict() for finding in findings]}
    Terminal(as_json=as_json, quiet=quiet).document(document, None if as_json else _table(shown))
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
