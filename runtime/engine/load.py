"""From a bundle to a session, whose weights are hashed while it is made: nothing is answered before.

Session and hashes are native code. Both are begun before the tokenizer is read, whose library keeps the
interpreter to itself for a tenth of a second: begun after it, they would only follow it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..kernels.library import require_library
from ..session.session import prepared_session
from .background import BackgroundTask


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
