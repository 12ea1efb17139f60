"""Running a decoder graph, or a part of one, at chosen batches, lengths and cache depths, without the
runtime's own loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.cache_names import grows, is_past, is_present, present_of
from ...runtime.session.session import graph_errors_are_typed

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


class GraphDriver:
    """``session`` over a decoder graph with any cache; ``weights`` are those that it takes as inputs."""

    def __init__(self, session: Any, weights: Mapping[str, Floats] | None = None) -> None:
        self.session, self.weights = session, dict(weights or {})
        inputs = [
            *session.get_inputs(),
            *session.get_overridable_initializers(),
        ]  # of which some have a value
        self._names = {node.name for node in inputs}
        self._pasts = [node for node in session.get_inputs() if is_past(node.name)]
        self._outputs = [node.name for node in session.get_outputs() if not is_present(node.name)]

    def logits(self, ids: Ids, *, depth: int = 0, lengths: list[int] | None = None) -> Floats:
        """Logits ``[batch, seq - depth, vocab]`` of ``ids [batch, seq]``; the rest as for :meth:`run`."""
        return self.run({"input_ids": ids}, depth=depth, lengths=lengths)["logits"]

    def run(
        self, values: Mapping[str, NDArray[Any]], *, depth: int = 0, lengths: list[int] | None = None
    ) -> dict[str, Floats]:
        """The outputs ``[batch, seq - depth, …]`` by name, of inputs ``[batch, seq, …]`` by name, the first
        ``depth`` of which come from the cache.

        ``lengths`` are the valid tokens of each row, the rest is padding on the right. Values that the graph
        has no input for are left out.
        """
        batch, total = next(iter(values.values())).shape[:2]
        cache = self._cache(values, depth)
        mask = np.ones((batch, total), np.int64)
        for row, length in enumerate(lengths or []):
            mask[row, length:] = 0
        found = self._run({name: value[:, depth:] for name, value in values.items()}, mask, cache, keep=0)
        return dict(zip(self._outputs, found, strict=False))

    def cache(self, ids: Ids, depth: int) -> dict[str, Any]:
        """A cache for all of ``ids [batch, seq]`` that holds the first ``depth``, as for :meth:`logits`."""
        return self._cache({"input_ids": ids}, depth)

    def _cache(self, values: Mapping[str, NDArray[Any]], depth: int) -> dict[str, Any]:
        batch, total = next(iter(values.values())).shape[:2]
        cache = self.empty_cache(batch, total)
        if not depth or not cache:
            return cache
        first = {name: value[:, :depth] for name, value in values.items()}
        found = self._run(first, np.ones((batch, depth), np.int64), cache, keep=1)
        return dict(zip(cache, found[len(self._outputs) :], strict=True))

    def empty_cache(self, batch: int, capacity: int) -> dict[str, Any]:
        """Inputs for ``capacity`` tokens that have not been seen yet."""
        return {
            node.name: np.zeros(_shape(node, batch, capacity), _DTYPES[node.type]) for node in self._pasts
        }

    def _run(
        self, values: Mapping[str, NDArray[Any]], mask: Ids, cache: dict[str, Any], *, keep: int
    ) -> list[Any]:
        fed = {**values, "attention_mask": mask, "logits_to_keep": np.array([keep], np.int64)}
        fed = {name: value for name, value in fed.items() if name in self._names}
        with graph_errors_are_typed("the exported graph does not run"):
            outputs = [*self._outputs, *presents(cache)]
            return list(self.session.run(outputs, {**fed, **self.weights, **cache}))


def presents(cache: dict[str, Any]) -> list[str]:
    """Names of the outputs that extend the inputs of ``cache``."""
    return [present_of(name) for name in cache]


def _shape(node: Any, batch: int, capacity: int) -> tuple[int, ...]:
    if grows(node.name):
        return batch, node.shape[1], capacity, node.shape[3]
    return batch, *node.shape[1:]
