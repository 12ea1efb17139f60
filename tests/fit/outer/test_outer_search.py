"""Ways to find codes sampled by Optuna, by several processes: each trial runs once, those of a killed process
are taken up, and a worker that would disturb or has nothing to join is refused.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.compress.pipeline.journal import write_sealed
from edgepress.errors import OutOfResource
from edgepress.files.storage import read_json
from edgepress.fit.asked.wish import Wish
from edgepress.fit.budgets import Budget
from edgepress.fit.job import Job
from edgepress.fit.methods import CUTS, Method
from edgepress.fit.outer.outer_search import OuterSearch, _Claim
from edgepress.fit.outer.worker import RayWorkers, outer_search, share
from edgepress.fit.quantities import DECODE, DISK
from edgepress.terminal.progress import Silent

TRIALS = 5


def fit(model: Path, text: Path, out: Path) -> list[str]:
    given = [
        "--max-disk",
        "190kB",
        "--text",
        str(text),
        "--samples",
        "16",
        "--length",
        "32",
        "--threads",
        "1",
    ]
    return ["fit", str(model), *given, "--trials", str(TRIALS), "-o", str(out)]


def start(cache: Path, errors: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A process of edgepress, whose notes go to a file."""
    environment = os.environ | {"EDGEPRESS_CACHE": str(cache)}
    command = [sys.executable, "-m", "edgepress", *arguments]
    with errors.open("ab") as stream:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stream)


def wait_for(path: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    while not list(path.glob(pattern)):
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.chain
def test_each_trial_runs_once_whoever_is_killed(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    out, errors = tmp_path / "o", tmp_path / "errors"
    work = tmp_path / ".o.partial"
    first = start(tmp_path / "cache", errors, *fit(pico_llama, pico_text, out))
    wait_for(work, "trials/*/bundle", first)
    worker = start(tmp_path / "cache", errors, "fit", "--worker", "--threads", "1", "-o", str(out))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert worker.wait(300) == 0  # with the trial that was left
    assert "taken up from a process that was stopped" in errors.read_text()
    assert not out.exists()
    again = start(tmp_path / "cache", errors, *fit(pico_llama, pico_text, out))
    assert again.wait(300) == 0
    found = read_json(out / "fit.json")
    assert len(found["trials"]) == TRIALS == len({trial["key"] for trial in found["trials"]})
    published = [line.split()[1] for line in errors.read_text().splitlines() if line.startswith("published")]
    counted = Counter(path for path in published if path.endswith("checkpoint"))
    assert len(counted) == TRIALS and set(counted.values()) == {1}
    methods = [trial["method"] for trial in found["trials"]]
    assert methods[0].endswith("as packaged") and set(methods) > {"gptq", "corrected"}
    assert "tuned" in methods[-1]
    page = (out / "front.html").read_text()
    assert all(f"trial {number}: " in page for number in range(1, TRIALS + 1))
    assert not work.exists()


@pytest.mark.chain
def test_a_cluster_of_ray_runs_the_same_trials(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("ray")
    out, errors = tmp_path / "o", tmp_path / "errors"
    given = [*fit(pico_llama, pico_text, out), "--executor", "ray"]
    assert start(tmp_path / "cache", errors, *given).wait(300) == 0
    said = errors.read_text()
    assert "tasks of Ray take part" in said and "tasks of Ray ran" in said
    assert "a task of Ray failed" not in said
    found = read_json(out / "fit.json")["trials"]
    assert len(found) == TRIALS == len({trial["key"] for trial in found})
    assert "corrected" in {trial["method"] for trial in found}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.chain
def test_tasks_of_ray_run_all_trials_where_nobody_else_does(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("ray")
    budgets = (Budget(DISK, 190e3),)
    wish = Wish(str(pico_llama), budgets, str(pico_text), samples=16, length=32, threads=1, trials=TRIALS)
    directory, notes = tmp_path / ".o.partial", Notes()
    directory.mkdir()
    job = Job(wish, directory, Silent())
    shared = outer_search(job, job.search(math.inf))
    share(job)
    with RayWorkers(tmp_path / "o", 2, notes):
        ends = time.monotonic() + 240
        while len(list(directory.glob("trials/*/development.json"))) < TRIALS and time.monotonic() < ends:
            time.sleep(0.2)
        assert shared.work(leads=True) == 0
        assert len(shared.search.trials) == TRIALS
    assert notes.said[1:] == [f"tasks of Ray ran {TRIALS} trials"]


def test_a_trial_that_failed_is_free_for_the_next_search_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")

    def full(*arguments: Any) -> Any:
        raise OutOfResource("the disk is full")

    search: Any = SimpleNamespace(progress=Silent(), said=lambda predicted: "", ran=full)
    shared = OuterSearch(search, tmp_path / "study.journal", 1)
    lock = shared._lock_of(0)

    def claim() -> _Claim:
        assert lock.acquire()
        return _Claim(None, Method("gptq"), (), {}, lock)

    monkeypatch.setattr(shared, "_claim", claim)
    with pytest.raises(OutOfResource):
        shared.work(leads=True)
    again = shared._lock_of(0)
    assert again.acquire()
    again.release()


def test_what_one_process_refuses_is_known_to_the_others(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    said: tuple[list[str], list[str]] = ([], [])
    searches: list[Any] = [SimpleNamespace(refuse=reasons.append) for reasons in said]
    worker, leader = (OuterSearch(one, tmp_path / "study.journal", 1) for one in searches)
    worker._refuse(worker.study.ask(), "rotated, gptq: no choice keeps the budgets")
    leader._take_in()
    assert said[0] == said[1] == ["rotated, gptq: no choice keeps the budgets"]


def test_what_no_cluster_can_share(
    pico_llama: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    given = [*fit(pico_llama, pico_text, tmp_path / "o"), "--executor", "ray"]
    assert run([*given, "--trials", "0"]) == 2
    assert "add --trials" in capsys.readouterr().err
    if find_spec("ray") is None:
        assert run(given) == 4
        assert 'pip install "edgepress[ray]"' in capsys.readouterr().err


def wished(tmp_path: Path, budget: Budget, host: str) -> None:
    (tmp_path / ".o.partial").mkdir(exist_ok=True)
    wish = Wish(str(tmp_path), (budget,), str(tmp_path / "no.txt"), trials=3)
    write_sealed(tmp_path / ".o.partial" / "wish.json", {"wish": wish.as_json, "host": host})


def test_workers_that_cannot_join_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker = ["fit", "--worker", "-o", str(tmp_path / "o")]
    assert run(worker) == 2
    assert "no search with trials is at work" in capsys.readouterr().err
    wished(tmp_path, Budget(DECODE, 10.0, "here"), "here")
    assert run(worker) == 2
    assert "workers cannot take part in a search with decode ≥ 10 tok/s" in capsys.readouterr().err
    assert run(["fit", "--worker"]) == 2
    assert run(["fit", "--max-disk", "1MB"]) == 2
    assert "missing MODEL" in capsys.readouterr().err


def test_a_wish_is_read_as_it_was_written(tmp_path: Path) -> None:
    wish = Wish(str(tmp_path), (Budget(DISK, 1e6), Budget(DECODE, 3.0, "pi")), "wikipedia", trials=4)
    written: dict[str, Any] = json.loads(json.dumps(wish.as_json))
    assert Wish.from_json(written) == wish


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        (Method(), ["allocate", "embedding"]),
        (Method("rtn", rotated=True), ["rotate", "allocate", "embedding"]),
        (Method("corrected", scaled=True, epochs=2), ["awq", "allocate", "embedding", "tune"]),
        (Method(epochs=2, learned="qat"), ["allocate", "embedding", "qat"]),
        (Method(rotated=True, cut="narrow 80 %"), ["narrow", "rotate", "allocate", "embedding"]),
    ],
)
def test_a_method_is_passes_of_a_recipe(method: Method, passes: list[str]) -> None:
    plan = {"a": "W4A16-g64", "b": "W3A16-g32", "c": "W4A16-g128"}
    tables = [{"pass": "embedding", "scheme": "W4A16-g16"}]
    first = [CUTS[method.cut]] if method.cut else []
    found = method.passes(plan, tables, tied=True, samples=16, first=first)
    assert [one["pass"] for one in found] == passes
    assert all(one["scheme"] == "W4A16-g32" for one in found if one["pass"] == "awq")
    assert all(not one["residual"] for one in found if one["pass"] == "rotate")


@pytest.mark.parametrize(
    ("method", "start"),
    [
        (Method(), None),
        (Method("corrected"), None),
        (Method(scaled=True), "codes"),
        (Method(rotated=True), "codes"),
        (Method(cut="layers 80 %"), "codes"),
    ],
)
def test_codes_begin_where_they_are_where_weights_are_not_the_original_s(
    method: Method, start: str | None
) -> None:
    method = replace(method, epochs=1, learned="qat")
    first = [CUTS[method.cut]] if method.cut else []
    *_, learning = method.passes({"a": "W4A16-g64"}, [], tied=True, samples=16, first=first)
    assert learning["pass"] == "qat" and learning.get("start") == start
