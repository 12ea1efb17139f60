"""A table fits every width: no word of it is cut, and nothing is lost."""

import io

import pytest
from edgepress.terminal.tables import FittingTable
from rich.console import Console


def shown(width: int) -> str:
    table = FittingTable(title="what was measured")
    table.add_column("metric")
    table.add_column("median\nand more", justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_row("replies that end in a loop", "12,345.6", "%")
    table.add_row("nothing", "", "")
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_words_are_whole_at_every_width(width: int) -> None:
    text = shown(width)
    assert "…" not in text and all(len(line) <= width for line in text.splitlines())
    assert all(word in text for word in ("measured", "replies", "loop", "12,345.6", "%", "nothing"))


def test_a_narrow_terminal_has_lines_and_a_wide_one_the_table() -> None:
    assert "│" in shown(80) and "│" not in shown(24)
    assert "replies that end in a loop: median and more 12,345.6, unit %" in " ".join(shown(24).split())
