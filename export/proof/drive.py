"""Running a decoder graph, or a part of one, at chosen batches, lengths and cache depths, without the
runtime's own loop.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.graph_contract import grows, is_past, is_present, present_of
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
    """``session`` over a decoder graph with any cache, which is extended in ``buffers`` of its last size, or
    by copies; ``weights`` are those that it takes as inputs.
    """

    def __init__(
        self, session: Any, weights: Mapping[str, Floats] | None = None, *, buffers: bool = True
    ) -> None:
        self.session, self.weights, self.buffers = session, dict(weights or {}), buffers
        self.beside: dict[str, NDArray[Any]] = {}
        inputs = [
            *session.get_inputs(),
            *session.get_overridable_initializers(),
        ]  # of which some have a value
        self._names = {node.name for node in inputs}
        self._pasts = [node for node in session.get_inputs() if is_past(node.name)]
        outputs = [node.name for node in session.get_outputs()]
        self._outputs = [name for name in outputs if not is_present(name)]
        self._extended = [node.name for node in self._pasts if present_of(node.name) in outputs]
        self._presents = list(map(present_of, self._extended))

    def logits(self, ids: Ids, *, depth: int = 0, lengths: list[int] | None = None) -> Floats:
        """Logits ``[batch, seq - depth, vocab]`` of ``ids [batch, seq]``; the rest as for :meth:`run`."""
        return self.run({"input_ids": ids}, depth=depth, lengths=lengths)["logits"]

    def run(
        self,
        values: Mapping[str, NDArray[Any]],
        *,
        depth: int = 0,
        lengths: list[int] | None = None,
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, Floats]:
        """The outputs ``[batch, seq - depth, …]`` and caches by name, of inputs ``[batch, seq, …]`` by name,
        the first ``depth`` of which come from the cache; those ``beside`` have other sizes.

        ``lengths`` are the valid tokens of each row, the rest is padding on the right. Values that the graph
        has no input for are left out.
        """
        self.beside = dict(beside or {})
        batch, total = next(iter(values.values())).shape[:2]
        cache = self._cache(values, depth)
        mask = np.ones((batch, total), np.int64)
        for row, length in enumerate(lengths or []):
            mask[row, length:] = 0
        found = self._run({name: value[:, depth:] for name, value in values.items()}, mask, cache, keep=0)
        return dict(zip(self._outputs + self._presents, found, strict=True))

    def cache(self, ids: Ids, depth: int) -> dict[str, Any]:
        """A cache for all of ``ids [batch, seq]`` that holds the first ``depth``, as for :meth:`logits`."""
        return self._cache({"input_ids": ids}, depth)

    def _cache(self, values: Mapping[str, NDArray[Any]], depth: int) -> dict[str, Any]:
        batch, total = next(iter(values.values())).shape[:2]
        cache = self.empty_cache(batch, total if self.buffers else 0)
        if not depth or not cache:
            return cache
        first = {name: value[:, :depth] for name, value in values.items()}
        found = self._run(first, np.ones((batch, depth), np.int64), cache, keep=1)
        extended = dict(zip(self._extended, found[len(self._outputs) :], strict=True))
        # Of the cache of another part a part of a graph reads the size alone.
        return {**self.empty_cache(batch, depth), **extended}

    def empty_cache(self, batch: int, capacity: int) -> dict[str, Any]:
        """Inputs for ``capacity`` tokens that have not been seen yet."""
        return {
            node.name: np.zeros(_shape(node, batch, capacity), _DTYPES[node.type]) for node in self._pasts
        }

    def _run(
        self, values: Mapping[str, NDArray[Any]], mask: Ids, cache: dict[str, Any], *, keep: int
    ) -> list[Any]:
        fed = {"attention_mask": mask, "logits_to_keep": np.array([keep], np.int64), **values, **self.beside}
        fed = {name: value for name, value in fed.items() if name in self._names}
        with graph_errors_are_typed("the exported graph does not run"):
            outputs = self._outputs + self._presents
            return list(self.session.run(outputs, {**fed, **self.weights, **cache}))


def _shape(node: Any, batch: int, capacity: int) -> tuple[int, ...]:
    if grows(node.name):
        heads, size = (one if isinstance(one, int) else 1 for one in (node.shape[1], node.shape[3]))
        return batch, heads, capacity, size
    return batch, *node.shape[1:]
