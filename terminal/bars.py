"""Bars on a terminal: a line for each task that fits any width, and one that ticks while nothing is counted.

Percent and the time left are never cut: the detail goes first, then the bar, the time passed, the label.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.progress import Progress, Task
from rich.text import Text

from ..files.escaping import printable

_WIDEST_BAR, _NARROWEST_BAR = 24, 8
_DONE = 0.995  # what is shown as 100 %: sums of estimates need not reach the whole


def clock(seconds: float | None) -> str:
    """``1:05`` or ``2:00:00``; dashes for None."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bar_line(
    label: str, share: float, passed: float, left: float | None, detail: str = "", width: int = 80
) -> str:
    """One line of at most ``width`` cells: label, bar, percent, time passed, time left, detail."""
    needed = f"{100 * share:3.0f} % ETA {clock(left)}"
    whole = f"{100 * share:3.0f} % {clock(passed)} ETA {clock(left)}"
    room = width - cell_len(label) - 1
    if room < cell_len(needed):
        return f"{_cut(label, max(width - cell_len(needed) - 1, 0))} {needed}".strip()[:width]
    tail = whole if room >= cell_len(whole) else needed
    size = min(_WIDEST_BAR, room - cell_len(tail) - 1)
    if size >= _NARROWEST_BAR:
        done = round(size * min(max(share, 0), 1))
        tail = f"{'━' * done}{'─' * (size - done)} {tail}"
    line = f"{label} {tail}"
    left_over = width - cell_len(line) - 2
    return f"{line}  {_cut(detail, left_over)}".rstrip() if left_over >= _NARROWEST_BAR else line


def _cut(text: str, width: int) -> str:
    """At most ``width`` cells of ``text``, which never end within a number: it would read as another."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    kept = set_cell_size(text, width - 1)
    if text.startswith(kept) and text[len(kept)].isdigit():
        kept = kept.rstrip("0123456789")
    return f"{kept}…"


class _Live(Progress):
    """rich's live display with lines of our own."""

    since = 0.0

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.line(task)
        if not self.tasks:
            yield Text(f"working {clock(time.monotonic() - self.since)}", style="dim")

    def line(self, task: Task) -> Text:
        share = task.completed / task.total if task.total else 1.0
        passed, left = task.elapsed or 0.0, 0.0 if share >= _DONE else task.time_remaining
        if left is None and share > 0:
            left = passed * (1 - share) / share  # before rich has seen a second step
        width = min(self.console.width, 140)
        shown = bar_line(task.description, share, passed, left, task.fields["detail"], width)
        return Text(shown, no_wrap=True, overflow="ellipsis")


class Bars:
    """A bar for each task, with the time passed and the time left; between tasks a clock, so that no silence
    is long. It ends with :meth:`close`.
    """

    def __init__(self, console: Console) -> None:
        self._live = _Live(console=console, redirect_stdout=False, refresh_per_second=4)
        self._live.live.transient = True
        self._live.since = time.monotonic()
        self._live.start()

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[_BarTask]:
        live = self._live
        identifier = live.add_task(printable(label), total=total, detail="")
        try:
            yield _BarTask(live, identifier)
        finally:
            task = next(task for task in live.tasks if task.id == identifier)
            line = live.line(task)
            live.remove_task(identifier)  # before the line: what is live is drawn again below it
            live.since = time.monotonic()
            live.console.print(line)

    def note(self, text: str) -> None:
        self._live.console.print(printable(text), markup=False, highlight=False)

    def close(self) -> None:
        """Take the bars away; what was finished stays."""
        self._live.stop()


class _BarTask:
    def __init__(self, live: _Live, identifier: int) -> None:
        self._live, self._identifier = live, identifier

    def advance(self, amount: float = 1, detail: str = "") -> None:
        self._live.update(self._identifier, advance=amount, detail=printable(detail))  # type: ignore[arg-type]
