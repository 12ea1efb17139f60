"""Runs a command, and ends it with all that it started when this process's stdin ends.

``python -m edgepress.benchmarks.serving.keeper COMMAND…`` stands between a measurement and a server: however
the measurement ends, killed too, its end of the pipe is closed. The command has a session of its own, so that
Ctrl-C reaches the measurement alone, which then ends it; and nothing of this Python's environment, since it
may be another's.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

import psutil

# Seconds from the request to stop to the kill, and between two looks at the command.
PATIENCE_S, LOOK_S = 5.0, 0.5
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def adopt_orphans() -> None:
    """Become the parent of what loses its own, so that it is found; where the system is not Linux, what has
    left the command's session and lost its parent is not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask ``child`` to stop, then kill it and whatever is left of what it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_S)
    for _ in range(2):  # the first may have started another
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main() -> int:
    """The exit code of the command, 128 and the signal's number where one ended it."""
    adopt_orphans()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONUNBUFFERED"] = "1"
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of stdin says when; the child does not inherit this
    while child.poll() is None and not select.select([0], [], [], LOOK_S)[0]:
        continue
    end(child)
    code = child.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
