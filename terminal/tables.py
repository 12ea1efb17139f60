"""Tables on a terminal: where it is too narrow for the words of one, a line or more for each row."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 1000  # columns, in which every table has room


class FittingTable(Table):
    """A table whose words are never cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        needed = Measurement.get(console, options.update_width(_WIDE), self).minimum
        if needed <= options.max_width:
            yield from super().__rich_console__(console, options)  # type: ignore[misc]
            return
        if self.title:
            yield self.title
        heads = [_plain(column.header) for column in self.columns]
        for first, *others in zip(*(map(_plain, column.cells) for column in self.columns), strict=True):
            named = zip(heads[1:], others, strict=True)
            rest = ", ".join(" ".join(filter(None, pair)) for pair in named if pair[1])
            yield Text(f"{first}: {rest}" if rest else first)


def _plain(cell: object) -> str:
    return " ".join(str(cell).split())
