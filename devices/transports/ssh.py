"""A link to a device over the user's own OpenSSH: their configuration, agent and jump hosts.

One connection carries one session: the device's Python reads the bootstrap from it, then requests. Both ends
send a heartbeat, so that neither waits for one that has ended.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ...errors import EdgepressError, InputError, MissingDependency, RefusedByPolicy
from .answers import LONGEST_LINE, DeviceError, Form, Ready, parse, read, refused

BEAT_S = 5.0
SILENCE_S = 120.0
CHUNK = 1 << 16
# What the user's configuration may not loosen; all else is theirs.
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ForwardAgent": "no",
    "ClearAllForwardings": "yes",
    "RequestTTY": "no",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ConnectTimeout": "20",
}
NO_PYTHON = 97
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "/opt/homebrew/bin/python3")
# Without single quotes, backslashes and exclamation marks: every login shell passes it on to sh as it is.
COMMAND = (
    f"exec sh -c 'for p in {' '.join(PYTHONS)}; do "
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2> /dev/null; then '
    'exec "$p" -I -u -c "import sys; b = sys.stdin.buffer; exec(b.read(int(b.readline())))"; fi; done; '
    f"exit {NO_PYTHON}'"
)


def require_address(address: str) -> str:
    """``address`` as ssh takes it, where it can be nothing but one: ``user@host``, a name of the user's
    configuration, ``ssh://user@host:port``, or the last as people write it, ``user@host:port``.
    """
    if re.fullmatch(r"[\w.+-]+@[\w.-]+:\d{1,5}", address):
        return f"ssh://{address}"
    plain = all(one.isalnum() or one in "@.:_-/[]%+" for one in address)
    if not address or address.startswith("-") or not plain or len(address) > 255:
        raise InputError(
            f"{address!r} is no address for ssh", fix="give user@host, or a Host of your ~/.ssh/config"
        )
    return address


class Link:
    """A session on a device:
    ``with Link("pi", "pi@raspberrypi") as link: link.ask({"do": "probe"}, Facts)``.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, require_address(address)
        self._answers: queue.Queue[bytes] = queue.Queue(64)
        self._said: deque[bytes] = deque(maxlen=40)
        self._writing, self._closed = threading.Lock(), threading.Event()
        self._began: float | None = None  # of the write that goes on

    def __enter__(self) -> Link:
        program = shutil.which("ssh")
        if program is None:
            raise MissingDependency("there is no ssh here", fix="install OpenSSH's client")
        options = [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]
        self._process = subprocess.Popen(
            [program, "-T", *options, "--", self.address, COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        works = (self._read_answers, self._read_complaints, self._beat, self._watch)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        source = (Path(__file__).parent / "bootstrap.py").read_bytes()
        self._write(b"%d\n%s" % (len(source), source))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        process = self._process
        with suppress(OSError):  # it may have ended first
            _pipe(process.stdin).close()
        if kind is not None:
            process.kill()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join(5)

    def ask(self, request: dict[str, Any], form: type[Form]) -> Form:
        """Send one request and read its answer as ``form``."""
        self.send(request)
        return self.answer(form)

    def answer(self, form: type[Form]) -> Form:
        """The next answer as ``form``."""
        return read(self.receive(), form, self.name)

    def send(self, request: dict[str, Any]) -> None:
        """One request."""
        self._write(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next line that is not a heartbeat."""
        while True:
            try:
                line = self._answers.get(timeout=SILENCE_S)
            except queue.Empty:
                raise self._lost(f"nothing came for {SILENCE_S:.0f} s") from None
            if not line:
                raise self._end()
            if line.strip():
                return parse(line, self.name)

    def become(self, environment: str, module: str) -> None:
        """Make the far end run ``module`` of ``environment``; it answers from then on."""
        self.send({"do": "become", "environment": environment, "module": module})
        self.answer(Ready)  # what came before would be read by the program that it was

    def send_file(self, path: Path, offset: int, taken: Callable[[int], None]) -> None:
        """The bytes of a file from ``offset`` on, raw; ``taken`` receives how many were."""
        with path.open("rb") as stream, self._writing:
            stream.seek(offset)
            while (chunk := stream.read(CHUNK)) and self._put(chunk):
                taken(len(chunk))

    def _write(self, data: bytes) -> None:
        with self._writing:
            self._put(data)

    def _put(self, data: bytes) -> bool:
        """Write, and say whether it was taken; a device that takes nothing for two minutes is lost."""
        stream = _pipe(self._process.stdin)
        self._began = time.monotonic()
        try:
            stream.write(data)
            stream.flush()
        except (BrokenPipeError, ValueError):
            return False  # receive() finds the end of the answers, and says why
        finally:
            self._began = None
        return True

    def _watch(self) -> None:
        """End the link when a write takes too long: closing it wakes whoever waits."""
        while not self._closed.wait(1):
            began = self._began
            if began is not None and time.monotonic() - began > SILENCE_S:
                self._process.kill()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            self._write(b"\n")

    def _read_answers(self) -> None:
        with _pipe(self._process.stdout) as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                self._take(line)
        self._take(b"")

    def _take(self, line: bytes) -> None:
        """Wait until there is room for a line: a device cannot fill this machine's memory."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._answers.put(line, timeout=1)
                return

    def _read_complaints(self) -> None:
        with _pipe(self._process.stderr) as stream:
            while line := stream.readline(1000):
                self._said.append(line)

    def _end(self) -> EdgepressError:
        """Why the answers ended."""
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return self._lost("it closed its output")
        self._threads[1].join(5)  # what it said last may still be on its way
        said = b"".join(self._said).decode("utf-8", "replace").replace("\r", "").strip()[-800:]
        if code == NO_PYTHON:
            return DeviceError(
                f"{self.name} has no Python 3.11 or newer",
                why=f"none of {', '.join(PYTHONS)} is one",
                fix="install one there: apt install python3, dnf install python3.11, brew install python",
            )
        return _refusal(self.name, self.address, said) or self._lost(said or f"ssh ended with {code}")

    def _lost(self, why: str) -> DeviceError:
        return DeviceError(f"the link to {self.name} was lost", why=why)


def _refusal(name: str, address: str, said: str) -> EdgepressError | None:
    """What ssh itself says of a link that never was."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return RefusedByPolicy(
            f"the host key of {name} is not known here, or is another one than before",
            why=said,
            fix=f"connect once by hand, and compare the key that it shows: ssh {address}",
        )
    if "Permission denied" in said:
        fix = f"make `ssh {address}` work without a question: ssh-copy-id, or a key in the agent"
        return DeviceError(f"{name} does not let you in", why=said, fix=fix)
    causes = ("Could not resolve", "onnection refused", "timed out", "No route to host", "unreachable")
    if any(cause in said for cause in causes):
        return DeviceError(f"{name} cannot be reached", why=said, fix=f"see whether it is on: ssh {address}")
    return None


def _pipe(stream: Any) -> BinaryIO:
    if stream is None:
        raise refused("ssh", "it has no pipe")
    return stream  # type: ignore[no-any-return]
