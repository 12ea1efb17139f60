"""The parent's side of a worker: starts the process, asks, and turns its errors and its death into typed
errors.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ...errors import BundleError, EdgepressError, InputError, OutOfResource
from ...files.third_party_errors import memory_shortage
from .work.timed_work import Workload, to_json


class Arm:
    """One worker with one bundle: ``with Arm(path, workload, threads=2, provider="cpu") as arm:
    arm.ask("block", …)``.
    """

    def __init__(self, bundle: Path, workload: Workload, *, threads: int, provider: str) -> None:
        self.bundle = bundle
        self._fields = {
            "bundle": str(bundle),
            "workload": to_json(workload),
            "threads": threads,
            "provider": provider,
        }
        self._process: subprocess.Popen[str] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Arm:
        self._stderr: IO[str] = self._open.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            if kind is None:
                self._say({"do": "quit"})
            else:
                process.kill()
            process.communicate()
        self._open.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._running().pid

    def load(self, *, cold: bool) -> dict[str, Any]:
        """``{"seconds", "cold", "providers"}``; ``cold`` in the answer says whether the cache was proven
        empty.
        """
        return self.ask("load", cold=cold, **self._fields)

    def operators(self, *, per_op: bool = False) -> dict[str, Any]:
        """Time by operator, as :func:`.trace.summed` sums it; with ``per_op`` the ``accounts`` of
        :func:`.per_op.accounts` too.
        """
        return self.ask("operators", per_op=per_op, **self._fields)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        process = self._running()
        self._say({"do": do, **fields})
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise self._death(process.wait(), do)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise typed_error(answer["error"])
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise EdgepressError("the worker has not been started")
        return self._process

    def _say(self, request: dict[str, Any]) -> None:
        stream = self._running().stdin
        try:
            print(json.dumps(request), file=stream, flush=True)
        except (BrokenPipeError, ValueError):
            # A dead worker cannot read it; ask() finds the end of its answers and reports the cause.
            return

    def _death(self, code: int, do: str) -> EdgepressError:
        self._stderr.seek(0)
        last = self._stderr.read()[-800:].strip()
        what = f"the process that measured {self.bundle} died during {do!r}"
        if code == -signal.SIGKILL:
            return OutOfResource(
                what,
                why="it was killed, as the kernel does when memory runs out",
                fix="close other programs, or measure a smaller model",
            )
        if shortage := memory_shortage(RuntimeError(last)):
            return shortage
        if code < 0:
            return BundleError(what, why=f"native crash with {signal.Signals(-code).name}. {last}".strip())
        return EdgepressError(what, why=last)


def typed_error(error: dict[str, Any]) -> EdgepressError:
    """The error of a worker as an exception of the class it had there."""
    # The class that brought the code, not one below it that only inherits it.
    kinds = {kind.code: kind for kind in reversed(_descendants(EdgepressError))}
    kind = kinds.get(error["code"], EdgepressError)
    if kind.__init__ is not EdgepressError.__init__:
        # UnknownName builds its own message from a list; the finished message fits its parent.
        kind = InputError
    return kind(error["what"], why=error["why"], fix=error["fix"])


def _descendants(kind: type[EdgepressError]) -> list[type[EdgepressError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _descendants(child))]
