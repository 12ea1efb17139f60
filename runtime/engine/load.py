"""From a bundle to a session: over this machine's prepacked copy where there is one, else over the bundle
itself, whose weights are hashed at the same time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import BundleError
from ..bundle.bundle import Bundle
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

    ``cache=False`` does without the prepacked copy. Where that copy is used the weights of the bundle are not
    read, nor hashed: the copy was made from weights that were.

    Raises:
        BundleError: the graph does not load, or its weights differ from the manifest.
        MissingDependency: ONNX Runtime or the provider is not installed.
    """
    opening = partial(open_session, threads=threads, provider=provider, profile=profile)
    entry = prepacked.find(bundle) if cache and provider == "cpu" else None
    if entry is not None:
        try:
            return opening(entry.graph, optimize=False)
        except BundleError:
            entry.drop()
    if not bundle.unchecked:
        return opening(bundle.graph)
    with BackgroundTask(partial(opening, bundle.graph)) as session:
        bundle.check_weights()
        return session.result()
