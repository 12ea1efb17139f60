"""Workers on a Ray cluster, with a stand-in for Ray: who takes part, and that the cluster is left. Ray itself
is that of :mod:`.test_outer_search`, where it is installed.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from edgepress.fit.ray_workers import RayWorkers
from edgepress.fit.worker import work_on
from edgepress.terminal import Silent


class Cluster(ModuleType):
    """The part of Ray that is used, on a cluster with ``resources``; ``calls`` are what it was asked."""

    def __init__(self, resources: dict[str, float]) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.resources, self.calls = resources, list[tuple[Any, ...]]()

    def init(self, **options: Any) -> None:
        self.calls.append(("init",))

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, *, num_cpus: int) -> Any:
        def wrap(function: Any) -> Any:
            def begin(output: str, progress: Silent) -> None:
                self.calls.append((function, num_cpus, output, type(progress)))

            return SimpleNamespace(remote=begin)

        return wrap

    def shutdown(self) -> None:
        self.calls.append(("shutdown",))


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("resources", "tasks"), [({"CPU": 8.0}, 4), ({"CPU": 3.0}, 3), ({"GPU": 1.0}, 1)])
def test_a_task_on_each_processor_and_no_more_than_trials(
    resources: dict[str, float], tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, notes = Cluster(resources), Notes()
    monkeypatch.setitem(sys.modules, "ray", cluster)
    with RayWorkers(tmp_path / "o", 4, notes):
        assert cluster.calls == [("init",), *[(work_on, 1, str(tmp_path / "o"), Silent)] * tasks]
    assert cluster.calls[-1] == ("shutdown",)
    assert notes.said == [f"{tasks} tasks of Ray take part"]


def test_a_search_that_fails_leaves_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({"CPU": 1.0})
    monkeypatch.setitem(sys.modules, "ray", cluster)
    with pytest.raises(KeyError), RayWorkers(tmp_path / "o", 4, Silent()):
        raise KeyError
    assert cluster.calls[-1] == ("shutdown",)
