"""A process in the environment of a client: artifacts and tasks on stdin, a JSON line each, and answers to
them on stdout.

``python worker.py CLIENT``; what the client raises ends the process, and its last line is the refusal.
Standard library only: edgepress is not installed where this runs, and this folder is the package that a
client imports from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

_PACKAGE = "interop"


def main() -> None:
    """Answer every line of stdin."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints does not break the answers
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    client = importlib.import_module(f"{_PACKAGE}.clients.{sys.argv[1]}")
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(client.answers(Path(asked["artifact"]), asked["task"])), file=channel, flush=True)
    os._exit(0)  # engines with threads of their own may hang in their destructors


if __name__ == "__main__":
    main()
