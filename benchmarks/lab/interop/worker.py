"""A process in the environment of a client: artifacts and tasks on stdin, a JSON line each, and answers to
them on stdout.

``python worker.py CLIENT``; what the client raises is answered as a refusal, but ends the process of a client
with ``FAILS_FOR_GOOD``, whose last line is the refusal then. Standard library only: edgepress is not
installed where this runs, and this folder is the package that a client imports from.
"""

import importlib.util
import json
import os
import sys
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

_PACKAGE = "interop"


class _Noted(AbstractContextManager["_Noted"]):
    """Keeps the error that ends its block; without ``keeps`` it goes on from there."""

    def __init__(self, keeps: bool) -> None:
        self.keeps, self.said = keeps, ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not self.keeps or not isinstance(error, Exception):
            return False
        self.said = "".join(traceback.format_exception(error))
        return True


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
        asked, found = json.loads(line), {}
        with _Noted(not getattr(client, "FAILS_FOR_GOOD", False)) as noted:
            found = client.answers(Path(asked["artifact"]), asked["task"])
        print(json.dumps({"refusal": noted.said} if noted.said else found), file=channel, flush=True)
    os._exit(0)  # engines with threads of their own may hang in their destructors


if __name__ == "__main__":
    main()
