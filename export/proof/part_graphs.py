"""The graph of a decoder part by part, in three forms: with float weights, with the stored weights and exact
arithmetic, and as it ships.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from ..graph.build import GraphPart, WeightView
from ..graph.graph_writer import Opset
from ..graph.whole_graph import build_graph
from ..job import ExportJob
from .drive import Floats, GraphDriver, Ids
from .graphs import EXACT, cut, exact_model, session_over


class PartRunner:
    """One part over its session."""

    def __init__(self, driver: GraphDriver, part: GraphPart) -> None:
        self.driver, self.part = driver, part

    def run(
        self, ids: Ids, inputs: Sequence[NDArray[Any]], depth: int = 0, lengths: list[int] | None = None
    ) -> list[Floats]:
        """The part's outputs ``[batch, seq - depth, …]`` of its ``inputs [batch, seq, …]`` for the tokens
        ``ids [batch, seq]``; the rest as for :meth:`GraphDriver.run`.
        """
        values = {"input_ids": ids, **dict(zip(self.part.inputs, inputs, strict=True))}
        found = self.driver.run(values, depth=depth, lengths=lengths)
        return [found[name] for name in self.part.outputs]


class PartGraphs:
    """The parts of ``graph``, which is on disk; float weights are never: they are handed over in memory.

    Attributes:
        held: float32 tensors by name that are at hand; each is taken out when it is used.
    """

    def __init__(self, job: ExportJob, graph: Path, parts: tuple[GraphPart, ...], opset: Opset) -> None:
        self.parts, self.directory = parts, graph.parent
        self.held: dict[str, Tensor] = {}
        self._source = job.source
        view = WeightView(job.source, as_float=True, read=self._read)
        self._float = build_graph(view, opset, None, job.form)
        self._exact, self._shipped = exact_model(graph), ir.load(graph)

    def _read(self, name: str) -> Tensor:
        held = self.held.pop(name, None)
        return self._source.tensor(name) if held is None else held

    @contextmanager
    def with_float_weights(
        self, index: int, given: Mapping[str, Floats] | None = None
    ) -> Iterator[PartRunner]:
        """The part ``index`` with every weight dequantized; those of ``given`` by name, and not as read."""
        model, unwritten = cut(self._float.model, self._float.parts[index])
        weights = dict(given or {})
        for name, tensor in unwritten.items():
            if name not in weights:
                weights[name] = tensor.numpy()
        with session_over(model, self.directory) as session:
            driver = GraphDriver(session, weights)
            del weights
            try:
                yield PartRunner(driver, self._float.parts[index])
            finally:
                driver.weights.clear()
                self.held.clear()

    @contextmanager
    def exact(self, index: int) -> Iterator[PartRunner]:
        """The part ``index`` with its stored weights, nothing else rounded."""
        model, _ = cut(self._exact, self.parts[index])
        with session_over(model, self.directory, EXACT) as session:
            yield PartRunner(GraphDriver(session), self.parts[index])

    @contextmanager
    def shipped(self, index: int) -> Iterator[PartRunner]:
        """The part ``index`` as it ships."""
        model, _ = cut(self._shipped, self.parts[index])
        with session_over(model, self.directory) as session:
            yield PartRunner(GraphDriver(session), self.parts[index])
