"""``work_on``: a further process that takes part in the search for an output, from the same directory.

``RayWorkers``: processes that take part in a search, as tasks of a Ray cluster whose machines share the
directory of the output. Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

import os
import platform
import socket
import time
from pathlib import Path
from types import TracebackType

from ...compress.pipeline.journal import read_sealed, write_sealed
from ...errors import EdgepressError, InputError, require
from ...files.storage import sha256_json
from ...files.third_party_errors import third_party_errors_are_typed
from ...terminal.progress import Progress, Silent
from ..asked.wish import Wish
from ..job import Job
from ..quantities import TIMED
from ..search import Search
from .outer_search import OuterSearch

WISH = "wish.json"
ADDRESS = "RAY_ADDRESS"
_ANSWER = 5.0  # seconds for a cluster to answer
_RETURN = 1.0  # seconds for a task to return, once the last trial is there
# Started so, Ray reports nothing to its makers.
_FIX = f"start one: ray start --head --disable-usage-stats; or unset {ADDRESS}"


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


class RayWorkers:
    """Open for as long as the search lasts: a task on each processor of the cluster, at most ``most``; of the
    cluster that RAY_ADDRESS names or that runs on this machine, else of one that is started here. What tasks
    did, and why one failed, is noted at the end.
    """

    def __init__(self, output: Path, most: int, progress: Progress) -> None:
        require("ray", "ray")
        _require_answer(os.environ.get(ADDRESS, ""))
        self.output, self.most, self.progress = output, most, progress

    def __enter__(self) -> None:
        import ray

        # A node that does not start in time is a bare Exception.
        with third_party_errors_are_typed(
            lambda why: InputError("no Ray cluster answers", why=why, fix=_FIX)
        ):
            ray.init(log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        count = min(self.most, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1)(work_on)
        self._tasks = [task.remote(str(self.output.absolute()), Silent()) for _ in range(count)]
        self.progress.note(f"{count} tasks of Ray take part")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import ray

        try:
            if kind is None:
                self._report()
        finally:
            ray.shutdown()

    def _report(self) -> None:
        """Note how many trials the tasks ran that have ended, and what ended others of them."""
        import ray
        from ray.exceptions import RayError

        ended, _ = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=_RETURN)
        ran = 0
        for task in ended:
            try:
                ran += ray.get(task)
            except RayError as error:
                cause = getattr(error, "cause", error)
                said = cause.what if isinstance(cause, EdgepressError) else repr(cause)
                self.progress.note(f"a task of Ray failed: {said}")
        self.progress.note(f"tasks of Ray ran {ran} trials")


def _require_answer(address: str) -> None:
    """Refuse a ``HOST:PORT`` where nothing answers, for which Ray would look for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # none, or a word of Ray's, such as auto
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
    except OSError as error:
        raise InputError(f"no Ray cluster answers at {ADDRESS}={address}", why=str(error), fix=_FIX) from None
