"""From a bundle to a session: over this machine's prepacked copy where there is one, else over the bundle
itself. The weights of either are hashed while the session is made, and nothing is answered before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import BundleError
from ..bundle.bundle import Bundle
from ..kernels.library import require_library
from ..prepack import prepacked
from ..session.session import open_session
from .background import BackgroundTask


def load_graph(
    bundle: Bundle,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    profile: Path | None = None,
    cache: bool = True,
) -> Any:
    """A session for the graph of ``bundle``; the arguments are those of :func:`~.session.open_session`.

    ``cache=False`` does without the prepacked copy, for the same answers. Where that copy is used the weights
    of the bundle are not read, nor hashed: the copy was made from weights that were.

    Raises:
        BundleError: the graph does not load, or its weights differ from the manifest.
        MissingDependency: ONNX Runtime or the provider is not installed.
    """
    if bundle.own_operators:
        require_library(f"the bundle {bundle.path}")
    opening = partial(open_session, threads=threads, provider=provider, profile=profile)
    if cache and provider == "cpu" and not bundle.own_operators:
        session = open_prepacked(bundle, prepacked.GRAPH, opening)
        if session is not None:
            return session
    if not bundle.unchecked:
        return opening(bundle.graph)
    with BackgroundTask(partial(opening, bundle.graph)) as task:
        bundle.check_weights()
        return task.result()


def open_prepacked(bundle: Bundle, name: str, opening: Callable[..., Any]) -> Any:
    """A session over the graph ``name`` of this machine's prepacked copy of ``bundle``, whose weights are
    hashed meanwhile; None where there is no copy, or a damaged one, which is dropped with a warning.
    ``opening`` is :func:`~.session.open_session` with its options.
    """
    entry = prepacked.find(bundle)
    if entry is None:
        return None
    try:
        with BackgroundTask(partial(opening, entry.path / name, optimize=False)) as session:
            entry.check_weights(name)
            return session.result()
    except BundleError as error:
        entry.drop_damaged(error.why)
        return None
