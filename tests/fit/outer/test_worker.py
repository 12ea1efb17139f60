"""Workers on a Ray cluster, with a stand-in for Ray: who takes part, what is said of them, and that the
cluster is left. Ray itself is that of :mod:`.test_outer_search`, where it is installed.
"""

import socket
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from edgepress.errors import InputError
from edgepress.fit.outer.worker import RayWorkers, work_on
from edgepress.terminal.progress import Silent


class RayError(Exception):
    """As Ray's, of a task: with its ``cause``."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Cluster(ModuleType):
    """The part of Ray that is used, on a cluster with ``resources``; ``calls`` are what it was asked. Tasks
    end as ``ends`` says: with a count of trials, or an error; those that it does not mention are at work.
    """

    def __init__(self, resources: dict[str, float], ends: dict[int, Any] | None = None) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.resources, self.ends, self.calls = resources, ends or {}, list[tuple[Any, ...]]()
        self.begun = 0

    def init(self, **options: Any) -> None:
        self.calls.append(("init",))

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, *, num_cpus: int) -> Any:
        def wrap(function: Any) -> Any:
            def begin(output: str, progress: Silent) -> int:
                self.calls.append((function, num_cpus, output, type(progress)))
                self.begun += 1
                return self.begun - 1

            return SimpleNamespace(remote=begin)

        return wrap

    def wait(self, tasks: list[int], *, num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        assert num_returns == len(tasks) and timeout > 0
        return [one for one in tasks if one in self.ends], [one for one in tasks if one not in self.ends]

    def get(self, task: int) -> Any:
        if isinstance(self.ends[task], Exception):
            raise self.ends[task]
        return self.ends[task]

    def shutdown(self) -> None:
        self.calls.append(("shutdown",))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], Cluster]:
    def put(cluster: Cluster) -> Cluster:
        monkeypatch.setitem(sys.modules, "ray", cluster)
        monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayError=RayError))
        return cluster

    return put


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("resources", "tasks"), [({"CPU": 8.0}, 4), ({"CPU": 3.0}, 3), ({"GPU": 1.0}, 1)])
def test_a_task_on_each_processor_and_no_more_than_trials(
    resources: dict[str, float], tasks: int, tmp_path: Path, stand_in: Callable[[Cluster], Cluster]
) -> None:
    cluster, notes = stand_in(Cluster(resources, {0: 2})), Notes()
    with RayWorkers(tmp_path / "o", 4, notes):
        assert cluster.calls == [("init",), *[(work_on, 1, str(tmp_path / "o"), Silent)] * tasks]
    assert cluster.calls[-1] == ("shutdown",)
    assert notes.said == [f"{tasks} tasks of Ray take part", "tasks of Ray ran 2 trials"]


def test_what_ended_a_task_is_said(tmp_path: Path, stand_in: Callable[[Cluster], Cluster]) -> None:
    no_search = InputError("no search with trials is at work on /elsewhere/o", fix="share the directory")
    ends = {0: RayError(no_search), 1: 3, 2: RayError(KeyError("x"))}
    cluster, notes = stand_in(Cluster({"CPU": 4.0}, ends)), Notes()
    with RayWorkers(tmp_path / "o", 4, notes):
        pass
    assert cluster.calls[-1] == ("shutdown",)
    assert notes.said[1:] == [
        "a task of Ray failed: no search with trials is at work on /elsewhere/o",
        "a task of Ray failed: KeyError('x')",
        "tasks of Ray ran 3 trials",
    ]


def test_a_search_that_fails_leaves_the_cluster(
    tmp_path: Path, stand_in: Callable[[Cluster], Cluster]
) -> None:
    cluster = stand_in(Cluster({"CPU": 1.0}))
    with pytest.raises(KeyError), RayWorkers(tmp_path / "o", 4, Silent()):
        raise KeyError
    assert cluster.calls[-1] == ("shutdown",)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_refused_at_once(
    scheme: str, tmp_path: Path, stand_in: Callable[[Cluster], Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = stand_in(Cluster({"CPU": 1.0}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        RayWorkers(tmp_path / "o", 4, Silent())
    with pytest.raises(InputError, match=f"no Ray cluster answers at RAY_ADDRESS={address}"):
        RayWorkers(tmp_path / "o", 4, Silent())
    assert not cluster.calls


@pytest.mark.parametrize(
    "raised",
    [
        ConnectionError("Could not find any running Ray instance"),
        Exception("The current node timed out during startup"),
    ],
)
def test_a_cluster_that_is_not_found_or_does_not_start_is_an_error_of_input(
    raised: Exception,
    tmp_path: Path,
    stand_in: Callable[[Cluster], Cluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(**options: Any) -> None:
        raise raised

    cluster = stand_in(Cluster({"CPU": 1.0}))
    monkeypatch.setattr(cluster, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match="ray start --head") as caught, RayWorkers(tmp_path, 4, Silent()):
        pytest.fail("nothing is searched")
    assert str(raised) in caught.value.why
