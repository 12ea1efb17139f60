"""The graph of a decoder part by part, in three forms: with float weights, with the stored weights and exact
arithmetic, and as it ships.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.session.session import graph_errors_are_typed
from ..graph.build import GraphPart, WeightView
from ..graph.encoder_decoder_graph import Stack
from ..graph.graph_writer import Opset
from ..graph.whole_graph import build_graph
from ..job import ExportJob
from .drive import Floats, GraphDriver, Ids
from .graphs import EXACT, cut, exact_model, session_over, with_float_caches


class PartRunner:
    """One part over its session."""

    def __init__(self, driver: GraphDriver, part: GraphPart) -> None:
        self.driver, self.part = driver, part

    def run(
        self,
        ids: Ids,
        inputs: Sequence[NDArray[Any]],
        depth: int = 0,
        lengths: list[int] | None = None,
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> list[Floats]:
        """The part's outputs ``[batch, seq - depth, …]`` of its first ``inputs [batch, seq, …]`` for the
        tokens ``ids [batch, seq]``; the rest as for :meth:`GraphDriver.run`.
        """
        values = {"input_ids": ids, **dict(zip(self.part.inputs, inputs, strict=False))}
        found = self.driver.run(values, depth=depth, lengths=lengths, beside=beside)
        return [_side_by_side(found[name]) for name in self.part.outputs]

    def alone(self, values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The part's outputs of ``values``, by the names of the graph's inputs and the part's; others are
        left out.
        """
        names = {node.name for node in self.driver.session.get_inputs()}
        fed = {name: value for name, value in values.items() if name in names} | self.driver.weights
        with graph_errors_are_typed("the exported graph does not run"):
            return list(self.driver.session.run(list(self.part.outputs), fed))


def _side_by_side(values: NDArray[Any]) -> NDArray[Any]:
    """``[batch, tokens, heads · size]`` of keys or values ``[batch, heads, tokens, size]``; others as they
    are.
    """
    return values if values.ndim < 4 else values.swapaxes(1, 2).reshape(len(values), values.shape[2], -1)


class PartGraphs:
    """The parts of ``graph``, which is on disk; float weights are never: they are handed over in memory.

    Attributes:
        held: float32 tensors by name that are at hand; each is taken out when it is used.
    """

    def __init__(
        self,
        job: ExportJob,
        graph: Path,
        parts: tuple[GraphPart, ...],
        opset: Opset,
        stack: Stack | None = None,
    ) -> None:
        self.parts, self.directory, self._graph = parts, graph.parent, graph
        self.held: dict[str, Tensor] = {}
        self._source, self._buffers = job.source, stack is None
        view = WeightView(job.source, as_float=True, read=self._read)
        self._float = build_graph(view, opset, job.pooling, job.form, stack or "decoder")
        stored = ir.load(graph) if stack is None else with_float_caches(job, graph, opset, stack)
        self._exact, self._shipped = exact_model(stored), ir.load(graph)

    def place(self, name: str) -> int:
        """The number of the first part called ``name``."""
        return [part.name for part in self.parts].index(name)

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
            driver = GraphDriver(session, weights, buffers=self._buffers)
            del weights
            try:
                yield PartRunner(driver, self._float.parts[index])
            finally:
                driver.weights.clear()
                self.held.clear()

    @contextmanager
    def exact(self, index: int) -> Iterator[PartRunner]:
        """The part ``index`` with its stored weights, nothing else rounded."""
        with self._over(self._exact, index, EXACT) as runner:
            yield runner

    @contextmanager
    def exact_but_for_caches(self, index: int) -> Iterator[PartRunner]:
        """As :meth:`exact`, of an encoder–decoder, with the caches as they ship."""
        with self._over(self._coded, index, EXACT) as runner:
            yield runner

    @cached_property
    def _coded(self) -> ir.Model:
        return exact_model(ir.load(self._graph))

    @contextmanager
    def shipped(self, index: int) -> Iterator[PartRunner]:
        """The part ``index`` as it ships."""
        with self._over(self._shipped, index) as runner:
            yield runner

    @contextmanager
    def _over(
        self, whole: ir.Model, index: int, config: Mapping[str, str] | None = None
    ) -> Iterator[PartRunner]:
        model, _ = cut(whole, self.parts[index])
        with session_over(model, self.directory, config) as session:
            yield PartRunner(GraphDriver(session, buffers=self._buffers), self.parts[index])
