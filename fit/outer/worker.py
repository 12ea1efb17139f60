"""``work_on``: a further process that takes part in the search for an output, from the same directory."""

from __future__ import annotations

import platform
import time
from pathlib import Path

from ...compress.pipeline.journal import read_sealed, write_sealed
from ...errors import InputError
from ...files.storage import sha256_json
from ...terminal.progress import Progress
from ..asked.wish import Wish
from ..job import Job
from ..quantities import TIMED
from ..search import Search
from .outer_search import OuterSearch

WISH = "wish.json"


def outer_search(job: Job, search: Search) -> OuterSearch:
    """The search that a job shares, in its directory: another one for other budgets or other text."""
    wish = job.wish
    asked = {
        name: value for name, value in wish.as_json.items() if name not in ("trials", "hours", "threads")
    }
    name = sha256_json([asked, job.fingerprint, job.texts.hashes])[:16]
    return OuterSearch(search, job.directory / f"study-{name}.journal", wish.trials, wish.seed)


def share(job: Job) -> None:
    """Leave what is asked for where workers find it."""
    write_sealed(job.directory / WISH, {"wish": job.wish.as_json, "host": platform.node()})


def work_on(output: str | Path, progress: Progress) -> int:
    """Run trials of the search for ``output`` until there are enough; returns how many were run here."""
    target = Path(output).absolute()
    directory = target.with_name(f".{target.name}.partial")
    found = read_sealed(directory / WISH)
    if found is None:
        raise InputError(
            f"no search with trials is at work on {target}",
            fix="start it first: edgepress fit MODEL … --trials 24 -o OUT; workers join with its OUT",
        )
    wish = Wish.from_json(found["wish"])
    refuse_budgets(wish, found["host"])
    wish.check()
    job = Job(wish, directory, progress)
    search = job.search(time.monotonic() + 3600 * wish.hours)
    shared: OuterSearch | None = None
    try:
        shared = outer_search(job, search)
        return shared.work(leads=False)
    except (OSError, InputError):
        if (directory / WISH).exists():
            raise
        progress.note("the search has ended: its output is whole")
        return 0 if shared is None else shared.ran


def refuse_budgets(wish: Wish, host: str) -> None:
    """Refuse budgets that further processes would disturb, or that are of another machine than ``host``."""
    here = [one for one in wish.budgets if one.device == "here"]
    timed = [one for one in wish.budgets if one.quantity in TIMED]
    if timed:
        raise InputError(
            f"workers cannot take part in a search with {timed[0].shown()}",
            why="what runs beside a measurement of speed makes it slower",
            fix="run it without workers",
        )
    if here and host != platform.node():
        raise InputError(
            f"{here[0].shown()} is a budget of {host}, and this is {platform.node()}",
            fix="name the device with --on, or run workers there",
        )
