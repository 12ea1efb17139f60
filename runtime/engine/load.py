"""From a bundle to a session, whose weights are hashed while it is made: nothing is answered before.

Session and hashes are native code. Both are begun before the tokenizer is read, whose library keeps the
interpreter to itself for a tenth of a second: begun after it, they would only follow it.

Work in a second thread, for work that leaves the interpreter free: hashing, making a session.

``concurrent.futures`` does as much and more, and brings ``logging`` into every start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from ...errors import EdgepressError
from ...files.limits import address_space_limit
from ..bundle.bundle import Bundle
from ..kernels.library import require_library
from ..session.session import prepared_session

Result = TypeVar("Result")


class LoadingGraph:
    """The graph of ``bundle`` on its way, or another ``graph`` of its; the other arguments are those of
    :func:`~.session.open_session`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        profile: Path | None = None,
        graph: Path | None = None,
    ) -> None:
        if bundle.own_operators:
            require_library(f"the bundle {bundle.path}")
        opening = prepared_session(graph or bundle.graph, threads=threads, provider=provider, profile=profile)
        self._hashes = BackgroundTask(bundle.check_weights) if bundle.unchecked else None
        self._session = BackgroundTask(opening)

    def result(self) -> Any:
        """The session, once it is there and its weights are known to be right."""
        with self._session:
            if self._hashes is not None:
                self._hashes.result()
            return self._session.result()


def load_graph(
    bundle: Bundle,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    profile: Path | None = None,
    graph: Path | None = None,
) -> Any:
    """A session for the graph of ``bundle``; as :class:`LoadingGraph`, waited for."""
    loading = LoadingGraph(bundle, threads=threads, provider=provider, profile=profile, graph=graph)
    return loading.result()


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
