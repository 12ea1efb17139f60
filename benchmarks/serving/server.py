"""``Server``: an engine's server as a child process, from its start to the end of all that it started.

What it prints and answers is read as a stranger's text: bounded, and never taken for another server's.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import psutil

from ...errors import CheckpointError, EdgepressError, EngineError, OutOfResource, OutputBusy
from ...files.third_party_errors import memory_shortage
from ...terminal.progress import Progress
from . import client
from .contract import ServingEngine, ServingTask, executable

# How long a server may take from its start to its first answer: large models are compiled meanwhile.
START_S = 900.0
_LOOK_S, _BEAT_S, _ANSWER_S = 0.5, 15.0, 5.0
_DYING_S, _END_S = 2.0, 20.0
_HEAD, _TAIL = 1 << 18, 1 << 16
_SHOWN_ERRORS, _SHOWN_LINES, _LONGEST, _SHOWN = 2, 4, 300, 600
_NAMED = re.compile(r"\b[A-Z]\w*(Error|Exception): ")
_TAKEN = (b"address already in use", b"errno 98")


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((client.HOST, 0))
        return int(listener.getsockname()[1])


class Server:
    """``with Server(engine, task, progress) as server: …`` in which it answers.

    Attributes:
        task: what it serves, and where.
        version: of the engine, as it answers.
        start_s: seconds from its start to its first answer.
    """

    def __init__(
        self, engine: ServingEngine, task: ServingTask, progress: Progress, *, start_s: float = START_S
    ) -> None:
        self.engine, self.task = engine, task
        self.version, self.start_s = "", 0.0
        self._progress, self._limit = progress, start_s
        self._head, self._tail = b"", b""

    def __enter__(self) -> Server:
        command = self.engine.command(executable(self.engine), self.task)
        begun = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.keeper", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **self.engine.variables(self.task)},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        try:
            self._reader.start()
            self._wait(begun)
        except BaseException:
            self.end()
            raise
        self.start_s = time.monotonic() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Stop it with all that it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_ANSWER_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def log(self) -> str:
        """What it printed first."""
        return self._head.decode("utf-8", errors="replace")

    def resident(self) -> int:
        """Bytes that the server and what it started hold now; shared pages count for each."""
        total = 0
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    def require_alive(self) -> None:
        """Raise the typed error where it has died, or dies now."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)
        if self._process.returncode is not None:
            raise self._death()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while data := os.read(stream.fileno(), 1 << 14):
            self._head += data[: _HEAD - len(self._head)]
            self._tail = (self._tail + data)[-_TAIL:]

    def _wait(self, begun: float) -> None:
        label, said = f"starting {self.engine.TITLE}", begun
        with self._progress.task(label, 1) as task:
            while self._process.poll() is None:
                if self._answers():
                    task.advance()
                    return
                now = time.monotonic()
                if now - begun > self._limit:
                    what = f"{self.engine.TITLE} did not answer within {self._limit:.0f} s of its start"
                    raise EngineError(what, why=self._last_lines())
                if now - said > _BEAT_S:
                    said, last = now, self._last_lines().rpartition("\n")[2][:100]
                    self._progress.note(f"{label}: {now - begun:.0f} s, at most {self._limit:.0f} s: {last}")
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_LOOK_S)
        raise self._death()

    def _answers(self) -> bool:
        """Whether this server answers; no other knows the name of the model."""
        try:
            served = client.models(self.task.port, timeout_s=_ANSWER_S)
            self.version = client.version(self.task.port, timeout_s=_ANSWER_S)
        except client.NoAnswer:
            return False
        if self.task.model not in served:
            raise self._port_taken(f"it serves {', '.join(served)[:200] or 'nothing'}")
        return True

    def _death(self) -> EdgepressError:
        self._reader.join(_ANSWER_S)
        said, code, title = self._last_lines(), self._process.returncode, self.engine.TITLE
        if any(words in self._tail.lower() for words in _TAKEN):
            return self._port_taken(said)
        printed = self._tail.decode("utf-8", errors="replace")
        refused = next((line for line in printed.splitlines() if _any(self.engine.REFUSALS, line)), None)
        if refused is not None:
            return CheckpointError(
                f"{title} does not serve {self.task.checkpoint}",
                why=refused.strip()[-_SHOWN:],
                fix="compress the model with W4A16 or W8A8",
            )
        what = f"the server of {title} died with exit code {code}"
        if shortage := memory_shortage(RuntimeError(said)):
            return OutOfResource(what, why=said, fix=shortage.fix)
        if code == 128 + 9:
            return OutOfResource(
                what,
                why=f"it was killed, as the kernel does when memory runs out. {said}",
                fix="close other programs, lower --concurrency, or serve a smaller model",
            )
        return EngineError(what, why=said)

    def _port_taken(self, why: str) -> OutputBusy:
        return OutputBusy(
            f"port {self.task.port} is in use by another program",
            why=why,
            fix="run the same command again: another port is chosen",
        )

    def _last_lines(self) -> str:
        """The last, and before them the first errors that are named: the last say seldom why."""
        text = self._tail.decode("utf-8", errors="replace")
        lines = [line.strip()[-_LONGEST:] for line in text.splitlines() if line.strip()]
        named = [line for line in lines[:-_SHOWN_LINES] if _NAMED.search(line)][:_SHOWN_ERRORS]
        return "\n".join([*named, *lines[-_SHOWN_LINES:]])


def _any(words: Sequence[str], line: str) -> bool:
    return any(one in line for one in words)
