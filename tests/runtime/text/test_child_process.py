"""However a child process ends, its parent gets a typed error and goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from edgepress.errors import OutOfResource, RefusedByPolicy
from edgepress.runtime.text import child_process, worker
from edgepress.runtime.text.child_process import ChildFailed, ChildProcess, Limits

pytestmark = pytest.mark.chain

HANDLER = """
import ctypes, os, signal, sys
def answer(asked):
    what = asked["do"]
    if what == "segv":
        ctypes.string_at(0)
    if what.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, what))
    if what == "exit":
        os._exit(7)
    if what == "raise":
        raise LookupError("what it never heard of")
    if what == "import":
        raise ImportError("lib.so: failed to map segment from shared object: Cannot allocate memory")
    if what == "loop":
        while True: pass
    if what == "allocate":
        return {"size": len(bytearray(10 << 30))}
    if what == "flood":
        return {"text": "x" * (1 << 20)}
    if what == "print":
        print("not a reply", flush=True)
    return {"done": what}
"""
LIMITS = Limits(seconds=20, memory=1 << 30, reply=1000)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    handler = tmp_path / "handler.py"
    handler.write_text(HANDLER)
    with ChildProcess(handler, refused=RefusedByPolicy) as process:
        yield process


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("segv", "signal 11"),
        ("SIGABRT", "signal 6"),
        ("SIGBUS", "signal 7"),
        ("SIGILL", "signal 4"),
        ("SIGKILL", "signal 9"),
        ("allocate", "more memory"),
        ("flood", "larger than 1000 bytes"),
    ],
)
def test_a_child_that_dies_or_overflows_is_refused(child: ChildProcess, ending: str, message: str) -> None:
    with pytest.raises(RefusedByPolicy, match=message):
        child.ask({"do": ending}, LIMITS)
    assert child.ask({"do": "go on"}, LIMITS) == {"done": "go on"}


@pytest.mark.parametrize("ending", ["SIGABRT", "SIGKILL"])
def test_an_end_where_the_machine_s_limit_is_the_lower_one_is_a_shortage(
    child: ChildProcess, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "address_space_limit", lambda: LIMITS.memory - 1)
    with pytest.raises(OutOfResource, match="ended by signal"):
        child.ask({"do": ending}, LIMITS)
    monkeypatch.setattr(child_process, "address_space_limit", lambda: LIMITS.memory)
    with pytest.raises(RefusedByPolicy):
        child.ask({"do": ending}, LIMITS)


def test_a_library_that_its_limit_did_not_let_load_is_refused(
    child: ChildProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is a failure, which says what it is, where the machine's limit is the lower one."""
    monkeypatch.setattr(child_process, "address_space_limit", lambda: LIMITS.memory)
    with pytest.raises(RefusedByPolicy, match="more than 1024 MB"):
        child.ask({"do": "import"}, LIMITS)
    monkeypatch.setattr(child_process, "address_space_limit", lambda: LIMITS.memory - 1)
    with pytest.raises(ChildFailed, match="Cannot allocate memory"):
        child.ask({"do": "import"}, LIMITS)


def test_an_endless_loop_is_stopped(child: ChildProcess) -> None:
    with pytest.raises(RefusedByPolicy, match="stopped after 1 s"):
        child.ask({"do": "loop"}, Limits(1, LIMITS.memory, LIMITS.reply))
    assert child.ask({"do": "go on"}, LIMITS) == {"done": "go on"}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no such clock here")
def test_the_child_keeps_its_own_clock(tmp_path: Path) -> None:
    """The parent's patience, which is longer, is not what ends a loop."""
    (tmp_path / "handler.py").write_text(HANDLER)
    request = {"asked": {"do": "loop"}, "seconds": 0.2, "memory": LIMITS.memory, "reply": LIMITS.reply}
    message = json.dumps(request).encode()
    done = subprocess.run(
        [sys.executable, "-P", str(Path(worker.__file__)), str(tmp_path / "handler.py")],
        input=len(message).to_bytes(8, "little") + message,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGALRM


@pytest.mark.parametrize(("ending", "message"), [("exit", "code 7"), ("raise", "never heard of")])
def test_a_child_that_ends_by_itself_failed(child: ChildProcess, ending: str, message: str) -> None:
    with pytest.raises(ChildFailed, match=message):
        child.ask({"do": ending}, LIMITS)
    assert child.ask({"do": "go on"}, LIMITS) == {"done": "go on"}


def test_what_a_library_prints_is_no_reply(child: ChildProcess) -> None:
    assert child.ask({"do": "print"}, LIMITS) == {"done": "print"}


def test_threads_take_turns(child: ChildProcess) -> None:
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(child.ask({"do": str(one)}, LIMITS)["done"]))
        for one in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == [str(one) for one in range(8)]


def test_children_that_died_leave_no_file_open(child: ChildProcess) -> None:
    counts = []
    for _ in range(3):
        with pytest.raises(ChildFailed):
            child.ask({"do": "exit"}, LIMITS)
        counts.append(psutil.Process().num_fds())
    assert counts == [counts[0]] * 3


def test_nothing_is_left_behind(child: ChildProcess) -> None:
    child.ask({"do": "go on"}, LIMITS)
    assert child._process is not None
    number = child._process.pid
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
