"""``GraphWriter``: an ONNX graph under construction, whose weights are computed when the file is written.

An initializer is a shape, a type and a function; the array exists only while its bytes go to disk. So
building a graph costs no memory, every shape is known (and refused if impossible) before the first byte is
written, and a model is never held twice.

Decoders need opset 21 (block-wise ``QuantizeLinear``), encoders 23 (``Attention``), and nothing newer. The
oldest version that does the work is the one that most runtimes read, so a newer runtime does not raise it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ... import __version__
from ...errors import MissingDependency

Array = NDArray[Any]
CONTRIB = "com.microsoft"
# The domain of the operators in runtime/kernels.
OWN_DOMAIN = "edgepress"
Kind = Literal["decoder", "encoder"]


@dataclass(frozen=True)
class Opset:
    """``version`` of the default ONNX domain and the file format's ``ir_version``."""

    version: int
    ir_version: int


# The first ONNX Runtime that runs the graphs of a kind, and what to write for it. 1.23 brought 2-bit
# MatMulNBits and uint8 GatherBlockQuantized; it has no QuantizeLinear of opset 23, 1.24 has.
_SUPPORTED: dict[Kind, tuple[tuple[int, int], Opset]] = {
    "decoder": ((1, 23), Opset(21, 10)),
    "encoder": ((1, 24), Opset(23, 11)),
}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


class GraphWriter:
    """Nodes in order, inputs, outputs and initializers by name.

    Attributes:
        nbytes: bytes of every initializer by name.
        read_per_token: bytes of it that one decode step reads, by name.
        repetition: of nodes that are written several times, which of them are: 0 is the first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nbytes: dict[str, int] = {}
        self.read_per_token: dict[str, int] = {}
        self.repetition = 0
        self._nodes: list[ir.Node] = []
        self._first: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """A graph input; strings in ``shape`` are free dimensions."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    @property
    def input_names(self) -> list[str]:
        """Names of the graph's inputs in order."""
        return [str(value.name) for value in self._inputs]

    @property
    def made(self) -> list[ir.Value]:
        """The graph's outputs so far."""
        return list(self._outputs)

    def default(self, value: ir.Value, array: Array) -> None:
        """Give a graph input the value it has when it is not fed."""
        value.const_value = ir.tensor(array, name=value.name)
        self._initializers[str(value.name)] = value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Make ``value`` a graph output called ``name``."""
        value.name = name
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        self._outputs.append(value)

    def weight(
        self,
        name: str,
        dtype: ir.DataType,
        shape: Sequence[int],
        make: Callable[[], Array],
        *,
        read_per_token: int | None = None,
    ) -> ir.Value:
        """An initializer whose array ``make`` returns when the file is written; one for each name.

        ``read_per_token`` is the bytes that one decode step reads of it; all of them by default.
        """
        if name not in self._initializers:

            def produce() -> ir.Tensor:
                array = np.ascontiguousarray(make())
                assert array.shape == tuple(shape), f"{name} has shape {array.shape}, not {tuple(shape)}"
                return ir.Tensor(array, dtype=dtype, name=name)

            tensor = ir.LazyTensor(produce, dtype=dtype, shape=ir.Shape(shape), name=name)
            self._register(name, tensor)
            self.read_per_token[name] = tensor.nbytes if read_per_token is None else read_per_token
        return self._initializers[name]

    def constant(self, name: str, array: Array) -> ir.Value:
        """A small initializer that is known now; the same name is the same one."""
        if name not in self._initializers:
            self._register(name, ir.tensor(array, name=name))
            self.read_per_token[name] = 0
        return self._initializers[name]

    def _register(self, name: str, tensor: Any) -> None:
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self._initializers[name] = value
        self.nbytes[name] = tensor.nbytes

    def node(self, op: str, name: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Append a standard ONNX node with one output and return that."""
        return self._append("", op, name, inputs, 1, attributes)[0]

    def outputs(
        self, op: str, name: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """Append a standard ONNX node and return its ``outputs``."""
        return self._append("", op, name, inputs, outputs, attributes)

    def split(self, name: str, value: ir.Value, sizes: Sequence[int]) -> tuple[ir.Value, ...]:
        """Split the last axis of ``value`` into ``sizes``."""
        lengths = self.constant(f"split.{'.'.join(map(str, sizes))}", np.array(sizes, dtype=np.int64))
        return self._append("", "Split", name, [value, lengths], len(sizes), {"axis": -1})

    def contrib(self, op: str, name: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Append a node of ONNX Runtime's own domain and return its first output."""
        return self._append(CONTRIB, op, name, inputs, 1, attributes)[0]

    def contrib_outputs(
        self, op: str, name: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """Append a node of ONNX Runtime's own domain and return ``outputs`` of its outputs."""
        return self._append(CONTRIB, op, name, inputs, outputs, attributes)

    def own(
        self, op: str, name: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """Append a node of edgepress's own domain and return ``outputs`` of its outputs."""
        return self._append(OWN_DOMAIN, op, name, inputs, outputs, attributes)

    def _append(
        self,
        domain: str,
        op: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        attributes: dict[str, Any],
    ) -> tuple[ir.Value, ...]:
        name = f"{name}.again.{self.repetition}" if self.repetition else name
        node = ir.node(op, inputs, attributes, domain=domain, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = f"{name}/{index}"
        self._nodes.append(node)
        return tuple(node.outputs)

    def either(
        self, name: str, condition: ir.Value, branches: Sequence[Callable[[], Sequence[ir.Value]]]
    ) -> tuple[ir.Value, ...]:
        """Append an ``If`` of ``condition``, one bool: what the first of ``branches`` returns where it is
        true, else what the second does. The nodes that a branch appends are its own; what it reads from
        outside it must give back by a node.
        """
        graphs = {}
        for branch, make in zip(("then_branch", "else_branch"), branches, strict=True):
            outside, self._nodes = self._nodes, []
            made = make()
            graphs[branch] = ir.Graph([], made, nodes=self._nodes, name=f"{name}.{branch}")
            self._nodes = outside
        attributes = {branch: ir.AttrGraph(branch, graph) for branch, graph in graphs.items()}
        return self._append("", "If", name, [condition], len(made), attributes)

    def before_all(self, make: Callable[[], ir.Value]) -> ir.Value:
        """What ``make`` returns; the nodes that it appends stand before all others, outside every branch, and
        read constants.
        """
        outside, self._nodes = self._nodes, self._first
        made = make()
        self._nodes = outside
        return made

    def repeated(self, times: int) -> Iterator[int]:
        """The repetitions of a block that is applied so many ``times``, while its nodes are written: they
        have names of their own, and read the same initializers.
        """
        for self.repetition in range(times):
            yield self.repetition
        self.repetition = 0

    def model(self, opset: Opset) -> ir.Model:
        """The finished model; the writer is not used after it."""
        own = {OWN_DOMAIN: 1} if any(node.domain == OWN_DOMAIN for node in self._nodes) else {}
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=[*self._first, *self._nodes],
            initializers=list(self._initializers.values()),
            opset_imports={"": opset.version, CONTRIB: 1, **own},
            name=self.name,
        )
        return ir.Model(
            graph, ir_version=opset.ir_version, producer_name="edgepress", producer_version=__version__
        )


def installed_runtime() -> str:
    """Version of the installed ONNX Runtime, read without importing it."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise MissingDependency(
        "exporting needs ONNX Runtime, which proves the graph before it is published",
        fix='install it with: pip install "edgepress[cpu]"',
    )


def opset_for(runtime: str, kind: Kind) -> Opset:
    """What to write for ONNX Runtime ``runtime`` (``"1.23.2"``) when the model is a ``kind``."""
    match = re.match(r"(\d+)\.(\d+)", runtime)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    oldest, opset = _SUPPORTED[kind]
    if release >= oldest:
        return opset
    first = ".".join(map(str, oldest))
    raise MissingDependency(
        f"ONNX Runtime {runtime} is older than {first}, the first that runs the graph of this {kind}",
        fix=f'update it with: pip install "onnxruntime>={first}"',
    )
