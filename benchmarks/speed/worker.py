"""A fresh process that holds one arm: loads a bundle, works in timed blocks, and reports its own peak memory.

``python -m edgepress.benchmarks.speed.worker`` reads one JSON request per line and answers with one JSON
line. Requests: ``load``, ``warm_up``, ``block``, ``repeat``, ``operators``, ``memory``, ``quit``. A library
that prints to stdout cannot break the protocol: the answers have a descriptor of their own, and descriptor 1
leads to stderr.

Memory before and after a measurement: files dropped from the page cache, and the peak of the process.

``posix_fadvise(DONTNEED)`` drops the clean pages of one file without root and without touching anything
else. It is only advice, so the result is checked: a read with ``RWF_NOWAIT`` answers from the cache or
not at all.

On Linux ``ru_maxrss`` survives ``exec`` and so begins at the size of whoever started the process;
``VmHWM`` belongs to the new address space and does not.
"""

import errno
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from ...errors import EdgepressError, InputError, OutOfResource
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile
from ...runtime.session.session import onnxruntime
from .per_op import accounts
from .protocol import SuspendWatch, warm_up
from .trace import Kernel, read_units, summed
from .work.loaded_work import Work
from .work.timed_work import Workload, from_json

# Units of work: what is not looked at before, and what is.
_THROWN_AWAY, _PLAIN_RUNS, _TRACED = 2, 3, 3
_PROBES = 16
# A probe may start a read-ahead of its surroundings, so the next one keeps its distance.
_APART = 1 << 20


class Worker:
    """Answers requests; one model at a time."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what the request says."""
        match request["do"]:
            case "load":
                return self._load(request)
            case "warm_up":
                return self._warm_up(request)
            case "block":
                return self._block(request)
            case "repeat":
                return self._repeat(request)
            case "operators":
                return self._operators(request)
            case "memory":
                peak, method = peak_rss()
                return {"rss_peak_bytes": peak, "method": method}
        raise InputError(f"the worker knows no request {request['do']!r}")

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds from a manifest on disk to a model and tokenizer that can run. Imports come before."""
        self._work = None
        root = Path(request["bundle"])
        onnxruntime()
        files = [path for path in root.iterdir() if path.is_file()]
        import_module("tokenizers")
        cold = drop_from_cache(files) if request["cold"] else False
        start = time.perf_counter_ns()
        self._work = _open(request, from_json(request["workload"]))
        seconds = (time.perf_counter_ns() - start) / 1e9
        return {"seconds": seconds, "cold": cold, "providers": self._work.session.get_providers()}

    def _warm_up(self, request: dict[str, Any]) -> dict[str, Any]:
        work, clock = self._loaded(), time.perf_counter_ns
        limits = {"iterations": request["iterations"], "seconds": request["seconds"]}
        iterations, seconds = warm_up(work.brief, clock=clock, **limits)
        return {"iterations": iterations, "seconds": seconds}

    def _block(self, request: dict[str, Any]) -> dict[str, Any]:
        work, watch = self._loaded(), SuspendWatch()
        runs, start = [work()], time.perf_counter_ns()
        while time.perf_counter_ns() - start < request["min_ms"] * 1e6:
            runs.append(work())
        return {"runs": runs, "suspended": watch.suspended()}

    def _repeat(self, request: dict[str, Any]) -> dict[str, Any]:
        """One phase of the work, over and over until it has lasted ``seconds``."""
        work, start, runs, units = self._loaded(), time.perf_counter_ns(), 0, 0
        while not runs or time.perf_counter_ns() - start < request["seconds"] * 1e9:
            units += work.repeat(request["phase"])
            runs += 1
        return {"runs": runs, "units": units}

    def _operators(self, request: dict[str, Any]) -> dict[str, Any]:
        """The work under ONNX Runtime's profiler, after some that is thrown away; for the account of each
        node more of it, and also runs without the profiler, before.
        """
        workload = from_json(request["workload"])
        plain = _step_times(_open(request, workload)) if request["per_op"] else {}
        with tempfile.TemporaryDirectory(prefix="edgepress-trace-") as folder:
            work = _open(request, workload, Path(folder) / "trace")
            units = _traced(work, _TRACED if request["per_op"] else 1)
        first = work.graph_runs[0]
        found = summed(units[-1], first)
        if request["per_op"]:
            graph = GraphFile.read(Bundle.open(Path(request["bundle"]), verify=False).graph)
            found["accounts"] = accounts(units, graph, first, plain)
        return found

    def _loaded(self) -> Work:
        if self._work is None:
            raise InputError("the worker has no model: load one first")
        return self._work


def _step_times(work: Work) -> dict[str, list[float]]:
    """Milliseconds of the steps of each phase, over some runs of ``work`` after what is thrown away."""
    for _ in range(_THROWN_AWAY):
        work()
    samples = [work() for _ in range(_PLAIN_RUNS)]
    return {
        phase: [ns / 1e6 for sample in samples for ns in sample[series]]
        for phase, series in work.phases.items()
    }


def _traced(work: Work, units: int) -> list[list[Kernel]]:
    """The kernels of ``units`` runs of ``work``."""
    for _ in range(_THROWN_AWAY + units):
        work()
    found, before = [list[Kernel]() for _ in range(units)], 0
    for session, runs in work.sessions:
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        for unit, kernels in zip(found, read_units(events, runs, units), strict=True):
            unit += [replace(kernel, run=kernel.run + before) for kernel in kernels]
        before += runs
    return found


def _open(request: dict[str, Any], workload: Workload, profile: Path | None = None) -> Work:
    # The parent has verified the hashes once; hashing again would be timed and would fill the page cache.
    bundle = Bundle.open(Path(request["bundle"]), verify=False)
    return workload.open(bundle, threads=request["threads"], provider=request["provider"], profile=profile)


def private_stdout() -> Any:
    """The real stdout under a number of its own; whatever is printed from now on goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def serve() -> None:
    """Answer the requests on stdin until ``quit`` or the end of the input."""
    channel, worker = private_stdout(), Worker()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        try:
            answer = worker.answer(request)
        except EdgepressError as error:
            answer = {"error": error.as_dict()}
        except MemoryError as error:
            answer = {"error": OutOfResource("out of memory while measuring", why=str(error)).as_dict()}
        print(json.dumps(answer), file=channel, flush=True)


def drop_from_cache(paths: list[Path]) -> bool:
    """Drop ``paths`` from the page cache; True only when every probe shows that the bytes must come from
    the disk.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    # Every file is dropped, also after one that stayed.
    dropped = [_drop(path) for path in paths]
    return all(dropped)


def _drop(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(handle).st_size
        probes = range(0, size, max(size // _PROBES, _APART))
        return not any(_is_cached(handle, offset) for offset in probes)
    except OSError:
        # File systems without advice or without non-blocking reads: cold cannot be claimed.
        return False
    finally:
        os.close(handle)


def _is_cached(handle: int, offset: int) -> bool:
    try:
        return os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise


def peak_rss(proc: Path = Path("/proc")) -> tuple[int, str]:
    """The peak resident bytes of the calling process since it began to run its own program, and the method
    that counted them. The path is for tests.
    """
    status = proc / "self/status"
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10, "VmHWM"
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset), "peak_wset"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10, "ru_maxrss"


if __name__ == "__main__":
    serve()
