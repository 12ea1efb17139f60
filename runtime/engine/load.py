"""From a bundle to a session, whose weights are hashed while it is made: nothing is answered before."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..kernels.library import require_library
from ..session.session import open_session
from .background import BackgroundTask


def load_graph(
    bundle: Bundle, *, threads: int | None = None, provider: str = "cpu", profile: Path | None = None
) -> Any:
    """A session for the graph of ``bundle``; the arguments are those of :func:`~.session.open_session`.

    Raises:
        BundleError: the graph does not load, or its weights differ from the manifest.
        MissingDependency: ONNX Runtime, the provider or edgepress's own operators are not installed.
    """
    if bundle.own_operators:
        require_library(f"the bundle {bundle.path}")
    opening = partial(open_session, bundle.graph, threads=threads, provider=provider, profile=profile)
    if not bundle.unchecked:
        return opening()
    with BackgroundTask(opening) as task:
        bundle.check_weights()
        return task.result()
