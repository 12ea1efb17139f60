"""The child process that handles what strangers wrote: requests on stdin, replies on stdout, under limits.

It is run as a script with the path of a handler (``chat_worker.py``, ``tokenizer_worker.py``) and imports
nothing of edgepress. A message is its length in 8 bytes and then JSON. The limits of each request come with
it, that of memory on top of what the handler took to start; an exception that the handler does not know ends
the process, and the parent reads why from stderr.
"""

import json
import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, BinaryIO

# What a failing library may write to stderr, which is a file.
_LEAST_FILE = 1 << 20


def _address_space() -> int:
    """Bytes of address space that this process has, where the system says so."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def limit_memory(limit: int, files: int) -> bool:
    """Cap this process's address space at ``limit`` bytes, where the system can, and each file it writes at
    ``files``; write no core dumps. False where the system's own limit is the lower one.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system: the clock is the only limit
        return True
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    lower = hard == resource.RLIM_INFINITY or limit < hard
    resource.setrlimit(resource.RLIMIT_AS, (limit if lower else hard, hard))
    _, largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE,
        (files if largest == resource.RLIM_INFINITY else min(files, largest), largest),
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return lower


def limit_time(seconds: float) -> None:
    """Let the kernel end this process after ``seconds`` from now, even inside one long C call; 0 is never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _handler(path: str) -> Any:
    spec = spec_from_file_location("handler", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _message(stream: BinaryIO) -> bytes | None:
    header = stream.read(8)
    return stream.read(int.from_bytes(header, "little")) if len(header) == 8 else None


def _serve(handler: Any, requests: BinaryIO, replies: BinaryIO) -> None:
    started = _address_space()
    while (message := _message(requests)) is not None:
        request = json.loads(message)
        ours = limit_memory(started + request["memory"], max(request["reply"], _LEAST_FILE))
        limit_time(request["seconds"])
        try:
            reply = json.dumps(handler.answer(request["asked"])).encode()
        except MemoryError:
            if not ours:  # the machine's shortage, not the file's fault
                raise
            reply = json.dumps({"refused": "it needs more memory than it may have"}).encode()
        limit_time(0)
        if len(reply) > request["reply"]:
            reply = json.dumps({"refused": f"its answer is larger than {request['reply']} bytes"}).encode()
        replies.write(len(reply).to_bytes(8, "little") + reply)
        replies.flush()


if __name__ == "__main__":
    # What a library prints must not stand between the replies.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(_handler(sys.argv[1]), sys.stdin.buffer, answers)
