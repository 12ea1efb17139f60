"""Running a decoder graph at chosen batches, lengths and cache depths, without the runtime's own loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """``session`` over a decoder graph with any cache."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self._pasts = [node for node in session.get_inputs() if node.name.startswith("past_key_values.")]

    def logits(self, ids: Ids, *, depth: int = 0, lengths: list[int] | None = None) -> Floats:
        """Logits ``[batch, seq - depth, vocab]`` of ``ids [batch, seq]``, the first ``depth`` of which come
        from the cache.

        ``lengths`` are the valid tokens of each row, the rest is padding on the right.
        """
        batch, total = ids.shape
        cache = self.cache(ids, depth)
        mask = np.ones((batch, total), np.int64)
        for row, length in enumerate(lengths or []):
            mask[row, length:] = 0
        return self._run(ids[:, depth:], mask, cache, keep=0)[0]

    def cache(self, ids: Ids, depth: int) -> dict[str, Any]:
        """A cache for all of ``ids [batch, seq]`` that holds the first ``depth``, as for :meth:`logits`."""
        batch, total = ids.shape
        cache = self.empty_cache(batch, total)
        if not depth:
            return cache
        return self._run(ids[:, :depth], np.ones((batch, depth), np.int64), cache, keep=1)[1]

    def empty_cache(self, batch: int, capacity: int) -> dict[str, Any]:
        """Inputs for ``capacity`` tokens that have not been seen yet."""
        return {
            node.name: np.zeros((batch, node.shape[1], capacity, node.shape[3]), _DTYPES[node.type])
            for node in self._pasts
        }

    def _run(self, ids: Ids, mask: Ids, cache: dict[str, Any], *, keep: int) -> tuple[Floats, dict[str, Any]]:
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "logits_to_keep": np.array([keep], np.int64),
            **cache,
        }
        with graph_errors_are_typed("the exported graph does not run"):
            logits, *values = self.session.run(["logits", *presents(cache)], feeds)
        return logits, dict(zip(cache, values, strict=True))


def presents(cache: dict[str, Any]) -> list[str]:
    """Names of the outputs that extend the inputs of ``cache``."""
    return [name.replace("past_key_values", "present") for name in cache]
