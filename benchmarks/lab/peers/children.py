"""A worker as a child process: one JSON job in, one JSON reply out, with its peak memory and CPU time.

The parent must be small itself: on Linux a child's peak begins with what its parent held when it was started.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from ..study.child import waited
from .workspace import Workspace

# The folder that holds the worker becomes a package of its own and is not on the path, so that none of our
# names hides a peer's package.
_LAUNCH = (
    "import runpy, sys, types; peers = sys.modules['peers'] = types.ModuleType('peers'); "
    "peers.__path__ = [sys.argv[1]]; runpy.run_module('peers.worker', run_name='__main__')"
)
_SHOWN = 400


@dataclass(frozen=True)
class Outcome:
    """What a worker replied, or the end of what it printed on stderr.

    Attributes:
        reply: None when it failed.
        error: empty when it did not.
    """

    reply: dict[str, Any] | None
    error: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def command(workspace: Workspace, peer: str, module: ModuleType) -> list[str]:
    """How the worker of ``peer`` is started."""
    python = str(workspace.python(peer, module))
    if not module.PACKAGES:
        return [python, "-P", "-m", f"{__package__}.worker"]
    return [python, "-P", "-c", _LAUNCH, str(Path(str(module.__file__)).parents[1])]


def variables(module: ModuleType, threads: int | None) -> dict[str, str]:
    """The environment variables of a worker."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Installed packages are bytecode; one that runs from its sources may keep it from its first process on.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if module.PACKAGES:
        environment.pop("PYTHONPATH", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def job_line(peer: str, module: ModuleType, job: Mapping[str, Any]) -> str:
    """The line of a job for ``peer``, whose kind is its folder."""
    kind = module.__name__.split(".")[-2]
    return json.dumps({**job, "kind": kind, "peer": peer}) + "\n"


def work(
    workspace: Workspace,
    peer: str,
    module: ModuleType,
    job: Mapping[str, Any],
    *,
    timeout: float,
    threads: int | None = None,
) -> Outcome:
    """Run one job of ``peer`` in a fresh process and wait for it, ``timeout`` seconds at most.

    Args:
        job: the variant and the fields of the task (see :mod:`.contract`); kind and peer are added here.
    """
    environment = variables(module, threads)
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() as given,
    ):
        began = time.monotonic()
        given.write(job_line(peer, module, {**job, "started": began}).encode())
        given.seek(0)
        child = subprocess.Popen(
            command(workspace, peer, module), stdin=given, stdout=out, stderr=err, env=environment
        )
        end = threading.Timer(timeout, child.kill)
        end.start()
        cost = waited(child, began)
        end.cancel()
        late = (
            f"stopped after {cost.wall_seconds:.0f} s ({cost.cpu_seconds:.0f} CPU s and a peak RSS of "
            f"{cost.peak_rss / 1e6:.0f} MB until then)"
        )
        how = late if cost.wall_seconds >= timeout else f"exit code {child.returncode}"
        error = "" if child.returncode == 0 else f"{how}: {_end(err)}"
        reply = None if error else json.loads(_read(out))
    return Outcome(reply, error, cost.wall_seconds, cost.cpu_seconds, cost.peak_rss)


def _end(stream: IO[bytes]) -> str:
    lines = [line for line in _read(stream).splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-_SHOWN:]


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")
