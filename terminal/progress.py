"""What the user sees: progress with an ETA, notes on stderr, and one JSON document on stdout.

Long work reports through a :class:`Progress`, which every floor may hold; only the CLI decides what it looks
like. On a terminal it is a bar (:mod:`.bars`); elsewhere a line at each tenth, but not two in a
second, or after 30 seconds. Whatever is shown may hold names from files, so it goes through :mod:`.escaping`
here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..files.escaping import printable, without_controls

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

# A line break stands in no string of a JSON document, so that this is a list.
_NUMBERS = re.compile(r"\[\n([-+.\deE,\s]+)\]")


# A line that is a command, or ends with one.
_COMMAND = re.compile(r"(?:^ *|: )edgepress [a-z]+ ")

# Receives how much of some work has been done since it was last called.
Tick = Callable[[float], None]


def unseen(amount: float) -> None:
    """The :data:`Tick` of work that nobody looks at."""


class Progress(Protocol):
    """Receives the advance of long work."""

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]: ...

    def note(self, text: str) -> None: ...


class ProgressTask(Protocol):
    """One piece of work with a known size."""

    def advance(self, amount: float = 1, detail: str = "") -> None: ...


def _write_note(text: str) -> None:
    """A line on stderr. When nobody reads it any more (``2>&1 | head``), the work goes on without."""
    try:
        print(fitted(printable(text)), file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def fitted(text: str) -> str:
    """``text`` for stderr: on a terminal its lines are broken between words, but for those with a command,
    which is copied whole.
    """
    if not sys.stderr.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(line if "edgepress " in line else _broken(line, width) for line in text.splitlines())


def _broken(line: str, width: int) -> str:
    """``line`` broken between words, all of it as far in as it begins."""
    start = line[: len(line) - len(line.lstrip())]
    broken = textwrap.wrap(
        line, width, subsequent_indent=start, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(broken) if len(line) > width else line


def print_json(value: Any) -> None:
    """One document on stdout, in ASCII: every terminal, locale and pipe can carry it. A list of numbers is
    one line.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    print(_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text), flush=True)


def print_pieces(pieces: Iterable[str]) -> None:
    """A model's text on stdout as it comes: to a pipe or file as it is, to a terminal without control
    characters, which could move its cursor or write its clipboard.
    """
    encoding = sys.stdout.encoding or "utf-8"
    for piece in pieces:
        shown = without_controls(piece) if sys.stdout.isatty() else piece
        # A terminal that cannot show a character gets a question mark, not an error in mid-text.
        print(shown.encode(encoding, "replace").decode(encoding), end="", flush=True)
    print(flush=True)


class _Printable:
    """What rich renders, each of its texts made printable."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.content, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class _SilentTask:
    def advance(self, amount: float = 1, detail: str = "") -> None:
        """Nothing to show."""


class Silent:
    """The default in library calls: shows nothing."""

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        yield _SilentTask()

    def note(self, text: str) -> None:
        """Nothing to show."""


_APART = 1.0  # seconds between two tenths that are shown


def time_in_words(seconds: float) -> str:
    """``90 s``, ``25 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _LineTask:
    def __init__(self, label: str, total: float, interval: float) -> None:
        self.label, self.total, self.interval = label, max(total, 1e-9), interval
        self.done = 0.0
        self.start = self.last = time.monotonic()
        self.tenth = 0

    def advance(self, amount: float = 1, detail: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        tenth, waited = int(10 * self.done / self.total), now - self.last
        # The last tenth is always said: of work that takes no second it is the only line.
        if (tenth > self.tenth and (waited >= _APART or tenth >= 10)) or waited >= self.interval:
            self.tenth, self.last = max(tenth, self.tenth), now
            elapsed = now - self.start
            eta = elapsed * (self.total - self.done) / self.done if self.done else 0.0
            left = f", ETA {time_in_words(eta)}" if eta > 0 else ""
            share = f"{100 * self.done / self.total:.0f} % after {time_in_words(elapsed)}{left}"
            _write_note(f"{self.label}: {share}  {detail}".rstrip())


class Lines:
    """Off a terminal: a line per tenth of the work, not two in a second, or per 30 seconds, no animation."""

    def __init__(self, interval: float = 30.0) -> None:
        self.interval = interval

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        yield _LineTask(label, total, self.interval)

    def note(self, text: str) -> None:
        _write_note(text)


@contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress]:
    """How a call from Python shows its progress: as asked; where nothing was, bars if stderr is a terminal,
    lines in a notebook, and nothing elsewhere.
    """
    if progress is not None and not isinstance(progress, bool):
        yield progress
    elif progress is False or not (progress or sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield Silent()
    else:
        terminal = Terminal()
        try:
            yield terminal.progress
        finally:
            terminal.close()


class Terminal:
    """The CLI's view: ``progress`` and ``say`` go to stderr, ``document`` is the one thing on stdout."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self._progress: Progress | None = None
        self._end: Callable[[], None] | None = None

    @property
    def progress(self) -> Progress:
        """How long work is shown here, until :meth:`close`."""
        if self._progress is None:
            self._progress = self._shown()
        return self._progress

    def _shown(self) -> Progress:
        if self.quiet:
            return Silent()
        if self.verbose:
            return Lines(interval=0)
        if not sys.stderr.isatty():
            return Lines()
        from rich.console import Console

        from .bars import Bars

        # By the stream, not by its name: a bar stays visible while a noisy library is muted.
        bars = Bars(Console(file=sys.stderr))  # it honours NO_COLOR
        self._end = bars.close
        return bars

    def close(self) -> None:
        """End the bars, if there are any: what follows is printed."""
        end, self._progress, self._end = self._end, None, None
        if end is not None:
            end()

    def say(self, text: str) -> None:
        """A note for a person, on stderr."""
        if not self.quiet:
            self.close()
            _write_note(text)

    def document(self, value: Any, text: object = None, *, as_written: bool = False) -> None:
        """The result: JSON under ``--json``, else ``text`` (a string or what rich renders).

        On a terminal long lines of a string are broken between words, but for those that end with a command,
        unless it must stay ``as_written``.
        """
        self.close()
        if self.as_json:
            print_json(value)
        elif text is not None:
            from rich.console import Console

            console = Console(emoji=False)
            if isinstance(text, str):
                shown = printable(text)
                if console.is_terminal and not as_written:
                    lines = shown.splitlines()
                    shown = "\n".join(
                        line if _COMMAND.search(line) else _broken(line, console.width) for line in lines
                    )
                console.print(shown, markup=False, highlight=False, soft_wrap=True)
            else:
                # Tables fit; what does not is a command, which is copied whole.
                console.print(_Printable(text), markup=False, highlight=False, crop=False)
