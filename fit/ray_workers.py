"""``RayWorkers``: processes that take part in a search, as tasks of a Ray cluster whose machines share the
directory of the output. Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ..errors import require
from ..terminal import Progress, Silent
from .worker import work_on


class RayWorkers:
    """Open for as long as the search lasts: a task on each processor of the cluster, at most ``most``; of the
    cluster that RAY_ADDRESS names, else of one that is started on this machine.

    Raises:
        MissingDependency: ray is not installed.
    """

    def __init__(self, output: Path, most: int, progress: Progress) -> None:
        require("ray", "ray")
        self.output, self.most, self.progress = output, most, progress

    def __enter__(self) -> None:
        import ray

        ray.init(log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        count = min(self.most, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1)(work_on)
        self._tasks = [task.remote(str(self.output), Silent()) for _ in range(count)]
        self.progress.note(f"{count} tasks of Ray take part")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import ray

        ray.shutdown()
