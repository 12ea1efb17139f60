"""A child process that runs what came with a model, with limits of time, memory and output.

Whatever happens to the child, a signal, a panic, an endless loop, is a typed error here; the parent goes on,
and its next question starts another child.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from ...errors import EdgepressError, InputError, OutOfResource
from ...files.limits import address_space_limit
from ...files.third_party_errors import memory_shortage

if TYPE_CHECKING:
    import subprocess

# The child keeps its own clock; this is added for its start, and ends it where it has none.
_BACKSTOP_SECONDS = 30.0


@dataclass(frozen=True)
class Limits:
    """What one request may take: ``seconds``, bytes of address space beyond what the handler took to start,
    and bytes of the ``reply`` and of each file that is written.
    """

    seconds: float
    memory: int
    reply: int


class ChildFailed(Exception):
    """The handler raised what it does not know; says ``Class: message``."""


class ChildProcess:
    """Asks a handler, a file of this folder or a path, in a process of its own that starts with the first
    request.

    ``refused`` makes the error of a child that went beyond a limit or was killed.
    """

    def __init__(self, handler: str | Path, *, refused: Callable[[str], EdgepressError]) -> None:
        self._handler = Path(__file__).parent / handler
        self._refused = refused
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def ask(self, asked: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """The handler's reply, a mapping."""
        with self._lock:
            if self._process is None:
                self._process = self._start()
            return self._exchange(self._process, asked, limits)

    def _start(self) -> subprocess.Popen[bytes]:
        import subprocess  # these two here alone: most starts need no child
        import tempfile

        # -P keeps this folder off the child's module path; few memory arenas keep its address space small.
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(self._handler)]
        if self._said is not None:
            self._said.close()  # of a child that ended
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._said.close)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            )
        except OSError as error:
            raise InputError(
                f"cannot start {command[0]!r} for what came with the model", why=str(error)
            ) from None
        weakref.finalize(self, _end, process)
        return process

    def _exchange(
        self, process: subprocess.Popen[bytes], asked: dict[str, Any], limits: Limits
    ) -> dict[str, Any]:
        request = {"asked": asked, "seconds": limits.seconds, "memory": limits.memory, "reply": limits.reply}
        message = json.dumps(request).encode()
        backstop = threading.Timer(limits.seconds + _BACKSTOP_SECONDS, process.kill)
        backstop.daemon = True
        backstop.start()
        reply, start = None, time.monotonic()
        try:
            reply = _answered(process, message, limits.reply)
        finally:
            backstop.cancel()
            if reply is None:
                self.close()
        if reply is None:
            late = time.monotonic() - start > limits.seconds + _BACKSTOP_SECONDS
            raise self._death(process.returncode, limits, late)
        found: dict[str, Any] = json.loads(reply)
        if "refused" in found:
            raise self._refused(found["refused"])
        return found

    def _death(self, code: int, limits: Limits, late: bool) -> Exception:
        assert self._said is not None
        if late or code == -getattr(signal, "SIGALRM", 0):
            return self._refused(f"it was stopped after {limits.seconds:.0f} s")
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 4096))
        last = "".join(self._said.read().decode("utf-8", "replace").strip().splitlines()[-1:])[:300]
        room = address_space_limit()
        if code < 0 and room is not None and room < limits.memory:  # the system's limit is the lower one
            return OutOfResource(
                "out of memory",
                why=f"a child process was ended by signal {-code} {last}".rstrip(),
                fix=f"raise the limit of address space (ulimit -v), which is {room >> 20} MB",
            )
        if code < 0:
            return self._refused(f"its process was ended by signal {-code} {last}".rstrip())
        failed = ChildFailed(last or f"its process ended with code {code}")
        if memory_shortage(failed) and (room is None or room >= limits.memory):
            return self._refused(f"it needs more than {limits.memory >> 20} MB: {last}")
        return failed


def _answered(process: subprocess.Popen[bytes], message: bytes, limit: int) -> bytes | None:
    """The reply to ``message``; None when the child ended, or its reply is longer than it may be."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(len(message).to_bytes(8, "little") + message)
        process.stdin.flush()
    except OSError:  # the child has ended
        return None
    size = int.from_bytes(process.stdout.read(8), "little")
    # A refusal is a sentence; an answer is within the limit.
    if not 0 < size <= max(limit, 4096):
        return None
    reply = process.stdout.read(size)
    return reply if len(reply) == size else None


def _end(process: subprocess.Popen[bytes]) -> None:
    import subprocess

    for stream in (process.stdin, process.stdout):
        assert stream is not None
        try:
            stream.close()
        except OSError:
            continue
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
