"""Work in a second thread, for work that leaves the interpreter free: hashing, making a session.

``concurrent.futures`` does as much and more, and brings ``logging`` into every start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from ...errors import EdgepressError
from ...files.limits import address_space_limit

Result = TypeVar("Result")


class BackgroundTask(Generic[Result]):
    """``task = BackgroundTask(work); …; found = task.result()``: ``work()`` begins at once.

    Where address space is limited it is done in this thread: another takes much of it, and may not start.
    As a context manager it ends the block only after ``work`` has ended, whatever happened in either.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._outcome: list[Result] = []
        self._error: EdgepressError | MemoryError | None = None
        self._thread = threading.Thread(target=self._run, name="edgepress-background")
        if address_space_limit() is None:
            self._thread.start()
        else:
            self._run()

    def _run(self) -> None:
        try:
            self._outcome.append(self._work())
        except (EdgepressError, MemoryError) as error:
            self._error = error

    def _wait(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> BackgroundTask[Result]:
        return self

    def result(self) -> Result:
        """What ``work`` returned, once it has."""
        self._wait()
        if self._error is not None:
            raise self._error
        if not self._outcome:
            raise EdgepressError("work in a second thread ended in an unknown error: see the traceback above")
        return self._outcome[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait()
