"""``RayWorkers``: processes that take part in a search, as tasks of a Ray cluster whose machines share the
directory of the output. Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType

from ...errors import EdgepressError, InputError, require
from ...files.third_party_errors import third_party_errors_are_typed
from ...terminal.progress import Progress, Silent
from .worker import work_on

ADDRESS = "RAY_ADDRESS"
_ANSWER = 5.0  # seconds for a cluster to answer
_RETURN = 1.0  # seconds for a task to return, once the last trial is there
# Started so, Ray reports nothing to its makers.
_FIX = f"start one: ray start --head --disable-usage-stats; or unset {ADDRESS}"


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
