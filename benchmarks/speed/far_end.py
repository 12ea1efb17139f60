"""The far end of ``profile --on`` and ``devices measure NAME``: measures on a device with the very code that
measures here, under a lease.

``python -m edgepress.benchmarks.speed.far_end`` reads one request from stdin, and after it heartbeats. Where
those end or are silent, everything that it started ends with it. It says what happens in JSON lines:
``task``, ``advance``, ``note``, ``round``, at the end each ``line``, and ``done`` or ``error``.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from ...devices.kernel_table.gpu import gpu_key, measure_gpu
from ...devices.kernel_table.measure import measure_kernels
from ...devices.transports.bootstrap import hold
from ...errors import EdgepressError, OutputBusy
from ...files.disk import disk_error, make_folder
from ...files.storage import cache_directory, lines_of, read_text
from ...files.third_party_errors import memory_shortage
from .latency import ArmSamples
from .profile import profile_bundle
from .protocol import Protocol
from .sitting import Sitting
from .worker import private_stdout

LEASE_S, BEAT_S = 60.0, 5.0


class Said:
    """Lines to the near end, from any thread; progress of the measurement among them."""

    def __init__(self) -> None:
        self._channel, self._lock = private_stdout(), threading.Lock()

    def say(self, **message: Any) -> None:
        """One line; nobody hears it any more where the link is broken, and the lease ends the work."""
        self.write(json.dumps(message, allow_nan=False))

    def write(self, line: str) -> None:
        """One line as it is; an empty one is a heartbeat."""
        with self._lock, suppress(BrokenPipeError):
            print(line, file=self._channel, flush=True)

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Said]:
        self.say(task=label, total=total)
        yield self

    def advance(self, amount: float = 1, detail: str = "") -> None:
        """Of the task that began last."""
        self.say(advance=amount, detail=detail)

    def note(self, text: str) -> None:
        """For a person."""
        self.say(note=text)


class Lease(threading.Thread):
    """Reads stdin: the first line is the request, and the end or a minute's silence ends this process and all
    that it started. Nothing stays in ``scratch``.
    """

    def __init__(self, scratch: Path) -> None:
        super().__init__(daemon=True)
        self.scratch, self.requests = scratch, queue.SimpleQueue[bytes]()

    def run(self) -> None:
        """Until the end."""
        text = b""
        while select.select([0], [], [], LEASE_S)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                break
            text += data
            *lines, text = text.split(b"\n")
            for line in filter(None, lines):
                self.requests.put(line)
        self.end()

    def end(self) -> None:
        """Kill what was started, remove what was written, and stop."""
        for _ in range(2):  # the first may have started another
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)
        os._exit(1)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the device for one measurement, whichever user asks for it."""
    import fcntl

    path = folder / "edgepress-measuring"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = _opened(path, flags)
    except OSError as error:
        raise OutputBusy(f"{path} there is another user's, and not to be opened", why=str(error)) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy("another measurement is running there") from None
        yield
    finally:
        os.close(handle)


def _opened(path: Path, flags: int) -> int:
    """For reading alone where it is there: another user may have made it."""
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o444)


def measure(request: dict[str, Any], said: Said, scratch: Path) -> None:
    """Do what the request says, and say the lines."""
    if "kernels" in request:
        folder, limit_s = cache_directory() / "device" / "kernels", request["kernels"]
        if request["provider"] == "cpu":
            table, _ = measure_kernels(said, folder=folder, limit_s=limit_s)
        else:
            key = gpu_key(request["provider"])
            path = folder / key.provider / f"{key.digest}.json"
            table = measure_gpu(key, path, said, limit_s=limit_s)
        said.say(table=table.model_dump(by_alias=True, mode="json"))
        said.say(done=True)
        return
    bundle, *baseline = request["bundles"]
    done = [[ArmSamples(**arm) for arm in one] for one in request["done"]]
    sitting = Sitting(
        settle_s=request["settle_s"],
        done=done,
        keep=lambda found: said.say(round=[asdict(arm) for arm in found]),
    )
    profile_bundle(
        bundle,
        baseline=baseline[0] if baseline else None,
        protocol=Protocol(**request["protocol"]),
        record=scratch / "run.jsonl",
        progress=said,
        sitting=sitting,
        **request["options"],
    )
    for line in lines_of(read_text(scratch / "run.jsonl")):
        said.write(f'{{"line": {line}}}')
    said.say(done=True)


def main() -> int:
    """Answer one request."""
    said, work = Said(), cache_directory() / "device" / "work"
    make_folder(work)
    scratch = work / f"run.{os.getpid()}.tmp"
    scratch.mkdir()
    hold(scratch)
    tempfile.tempdir = str(scratch)  # of the workers, too
    shared = Path(os.environ.get("TMPDIR", "/tmp"))
    os.environ["TMPDIR"] = str(scratch)
    lease = Lease(scratch)
    lease.start()
    threading.Thread(target=_beat, args=(said,), daemon=True).start()
    said.say(ready=True)
    request = json.loads(lease.requests.get())
    try:
        with only_one(shared):
            measure(request, said, scratch)
    except EdgepressError as error:
        said.say(error={"code": error.code, "what": error.what[:2000], "why": error.why[:2000]})
    except (MemoryError, OSError) as error:
        failed = EdgepressError("the system failed while measuring", why=repr(error)[:2000])
        found = disk_error(scratch, error) or memory_shortage(error) or failed
        said.say(error={"code": found.code, "what": found.what, "why": found.why[:2000]})
    shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _beat(said: Said) -> None:
    pause = threading.Event()
    while not pause.wait(BEAT_S):
        said.write("")


if __name__ == "__main__":
    sys.exit(main())
