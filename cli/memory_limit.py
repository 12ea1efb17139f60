"""A verb under a limit of address space runs in a child process, whose death is an answer.

Where native code cannot allocate it aborts, exits or crashes, and nothing in its process can catch that.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from ..errors import EdgepressError, OutOfResource


def run_in_child(run: Callable[[], int], failed: Callable[[EdgepressError], int], limit: int) -> int:
    """The exit code of ``run()``, or what ``failed`` makes of the child's end where native code ended it."""
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(_answer(run, writer))
    os.close(writer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the child too
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    said = os.read(reader, 1)
    _, status = os.waitpid(child, 0)
    return said[0] if said else failed(_shortage(status, limit))


def _answer(run: Callable[[], int], writer: int) -> int:
    try:
        code = run()
    except MemoryError:  # where it was to be reported
        os._exit(1)
    os.write(writer, bytes([code]))
    return code


def _shortage(status: int, limit: int) -> OutOfResource:
    code = os.waitstatus_to_exitcode(status)
    end = f"signal {-code}" if code < 0 else f"code {code}"
    return OutOfResource(
        "out of memory",
        why=f"native code ended the process ({end}), whose address space is limited to {limit >> 20} MB",
        fix="raise the limit (ulimit -v, ulimit -d), or choose a smaller model",
    )
