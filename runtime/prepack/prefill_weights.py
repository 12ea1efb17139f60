"""The prefill graph with the weights that this device makes for it: in a file of the cache, or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.prepacked_linear import RemadeLinear
from ..session.session import PREFILL, open_session, save_optimized
from .int8_weights import remake


def save_prefill(bundle: Bundle, target: Path) -> None:
    """Write the prefill graph of ``bundle`` with its weights to ``target`` and beside it, as they are and
    packed.

    Raises:
        BundleError: the graph does not load, or the weights cannot be made.
    """
    assert bundle.prefill is not None
    weights = remake(bundle.path / bundle.prefill.file, bundle.graph, bundle.prefill.linears)
    save_optimized(bundle.path / bundle.prefill.file, target, weights=weights)


def opened_in_memory(
    graph: Path, model: Path, linears: Sequence[RemadeLinear], *, threads: int | None = None
) -> Any:
    """A session over the prefill graph in the file ``graph``, whose weights are made of the graph ``model``
    and held in memory: what a proof runs.
    """
    return open_session(graph, threads=threads, config=PREFILL, weights=remake(graph, model, linears))
