"""A server's life and death: what it started always ends, and whatever it does is a typed error."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from edgepress.benchmarks.serving.contract import ServingTask, engine
from edgepress.benchmarks.serving.server import Server, free_port
from edgepress.errors import CheckpointError, EngineError, MissingDependency, OutOfResource, OutputBusy
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain
VLLM = engine("vllm")
WAIT_S = 60.0


def task(model: str = "mine") -> ServingTask:
    return ServingTask(Path("checkpoint"), model, free_port(), 8, 2, 1, 1 << 10)


def server(limit_s: float = WAIT_S) -> Server:
    return Server(VLLM, task(), Silent(), start_s=limit_s)


def processes(pids: Path) -> list[int]:
    """The server and the process that it started, once both are there."""
    until = time.monotonic() + WAIT_S
    while len(pids.read_text(encoding="ascii").split() if pids.exists() else ()) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    return [int(one) for one in pids.read_text(encoding="ascii").split()]


def all_ended(numbers: list[int]) -> bool:
    """Waits for it; a zombie whose parent is gone has ended too."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if not any(_runs(number) for number in numbers):
            return True
        time.sleep(0.05)
    return False


def _runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_answers_and_all_that_it_started_ends(fake_vllm: Callable[[str], Path]) -> None:
    pids = fake_vllm("")
    with server() as running:
        numbers = processes(pids)
        assert all(map(psutil.pid_exists, numbers)) and running.resident() > 0
        assert running.version == "0.32.0" and running.start_s > 0
        assert VLLM.settings(running.log)["dtype"] == "bfloat16"
        running.require_alive()
    assert all_ended(numbers)


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("dies", EngineError, "not to its liking"),
        ("refuses", CheckpointError, "No compressed-tensors compatible scheme"),
        ("taken", OutputBusy, "in use"),
        ("memory", OutOfResource, "unable to allocate"),
        ("killed", OutOfResource, "killed"),
        ("other", OutputBusy, "serves another"),
    ],
)
def test_a_server_that_dies_says_why(
    fake_vllm: Callable[[str], Path], mode: str, kind: type[Exception], said: str
) -> None:
    pids = fake_vllm(mode)
    with pytest.raises(kind, match=said), server():
        pass
    assert all_ended(processes(pids))


def test_one_that_never_answers_is_given_up(fake_vllm: Callable[[str], Path]) -> None:
    pids = fake_vllm("floods")
    with pytest.raises(EngineError, match="did not answer within 2 s"), server(2.0):
        pass
    assert all_ended(processes(pids))


def test_it_ends_when_the_measurement_is_killed(fake_vllm: Callable[[str], Path]) -> None:
    pids = fake_vllm("")
    code = (
        "import pathlib, time\n"
        "from edgepress.benchmarks.serving.contract import ServingTask, engine\n"
        "from edgepress.benchmarks.serving.server import Server, free_port\n"
        "from edgepress.terminal.progress import Silent\n"
        "task = ServingTask(pathlib.Path('c'), 'mine', free_port(), 8, 2, 1, 1024)\n"
        "with Server(engine('vllm'), task, Silent()):\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as measuring:
        numbers = processes(pids)
        os.kill(measuring.pid, signal.SIGKILL)
    assert all_ended(numbers)


def test_a_program_that_is_not_there_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_VLLM", "/nowhere/vllm")
    with pytest.raises(MissingDependency) as caught, server():
        pass
    assert "pip install vllm" in caught.value.fix and "/nowhere/vllm" in caught.value.why
