"""The process that times: its request, its answers line by line, and its end."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ...errors import EdgepressError


def timed_cases(request: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """What the process that times says, until it ends or ``until``; then it is ended."""
    start = time.monotonic()
    lines = queue.SimpleQueue[str | None]()
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.timing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        said = child.stdout

        def read() -> None:
            for line in said:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read, daemon=True)
        try:
            reader.start()
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
            while (wait := until - time.monotonic()) > 0 and (line := _next(lines, wait)) is not None:
                message = json.loads(line)
                yield {**message, "after": time.monotonic() - start} if "ready" in message else message
            if until > time.monotonic() and child.wait(10):
                complaints.seek(0)
                raise EdgepressError("the process that times kernels ended", why=complaints.read()[-800:])
        finally:
            child.kill()
            reader.join(10)


def _next(lines: queue.SimpleQueue[str | None], wait: float) -> str | None:
    try:
        return lines.get(timeout=wait)
    except queue.Empty:
        return None
