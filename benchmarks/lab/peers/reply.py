"""What every worker does: one JSON job on stdin, one JSON answer on stdout, and the versions that were used.

It runs in the environments of the peers: standard library only. A library that prints to stdout cannot break
the answer, which has a descriptor of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of ``names``, without those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def reply(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the job on stdin, and end this process."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps(answer(json.loads(sys.stdin.read()))), file=channel, flush=True)
    channel.close()
    # Engines with threads of their own may hang or crash in their destructors; what was asked for is done.
    os._exit(0)
