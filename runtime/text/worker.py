"""The child process that handles what strangers wrote: requests on stdin, replies on stdout, under limits.

It is run as a script with the path of a handler (``chat_worker.py``, ``tokenizer_worker.py``) and imports
nothing of edgepress. A message is its length in 8 bytes and then JSON. The limits of each request come with
it; an exception that the handler does not know ends the process, and the parent reads why from stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any, BinaryIO


def limit_memory(limit: int) -> None:
    """Cap this process's address space at ``limit`` bytes, where the system can; write no core dumps."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the clock is the only limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
    while (message := _message(requests)) is not None:
        request = json.loads(message)
        limit_memory(request["memory"])
        limit_time(request["seconds"])
        try:
            reply = json.dumps(handler.answer(request["asked"])).encode()
        except MemoryError:
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
