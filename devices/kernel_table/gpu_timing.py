"""``DeviceChain``: several nodes of one kind in one session of a provider, timed together. All that they read
lies in the provider's memory before.

Tested with the CPU as the device; not run on a GPU yet.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.session.session import device_of, graph_errors_are_typed, onnxruntime, open_session
from .chain import LAST_BYTE, LEAST_BYTE
from .node_kinds import Fed, NodeKind
from .small_model import FLOAT, FLOAT16, INT8, INT32, INT64, UINT8, SmallModel, Tensor

_TYPES = {"float32": FLOAT, "float16": FLOAT16, "int8": INT8, "uint8": UINT8, "int32": INT32, "int64": INT64}
# About how long a pass takes, at the rates of a server's GPU; what is far is more than its cache holds.
_PASS_S, _WORK, _BYTES, _LAUNCH_S = 5e-4, 5e13, 1e12, 3e-6
MOST_NODES, FAR_BYTES = 64, 128 << 20


class DeviceChain:
    """Nodes of ``kind``, each with weights and cache of its own.

    Args:
        far: they are more than a GPU's cache holds, all together.
        folder: for the graph's file. nodes: how many; 0 for as many as take a pass's time.
    """

    def __init__(self, kind: NodeKind, provider: str, folder: Path, *, far: bool, nodes: int = 0) -> None:
        self.kind, self._device = kind, device_of(provider)
        self._generator = np.random.default_rng(0)
        self.nodes = nodes or _count(kind, far=far)
        path = folder / "chain.onnx"
        path.write_bytes(self._model().serialized())
        self.session = open_session(path, provider=provider)
        self._binding = self.session.io_binding()
        self._kept: list[Any] = []
        self._bind()

    def _names(self, node: int) -> list[str]:
        return [
            "" if fed is None else f"s{at}" if fed.role == "shared" else f"w{node}.{at}"
            for at, fed in enumerate(self.kind.inputs)
        ]

    def _caches(self, node: int) -> list[tuple[str, str, Fed]]:
        """Of a node's caches the name of the output, of the input, and the array."""
        held = [
            (name, fed)
            for name, fed in zip(self._names(node), self.kind.inputs, strict=True)
            if fed is not None and fed.role == "cache"
        ]
        return [(f"p{node}.{index}", name, fed) for index, (name, fed) in enumerate(held)]

    def _model(self) -> SmallModel:
        model, kind = SmallModel(), self.kind
        for node in range(self.nodes):
            for name, fed in zip(self._names(node), kind.inputs, strict=True):
                if fed is not None:
                    model.inputs[name] = Tensor(_TYPES[fed.dtype], fed.shape)
            caches = self._caches(node)
            further = [name for name, _, _ in caches]
            if not caches and kind.outputs > 1:
                further = [*[""] * (kind.outputs - 2), f"z{node}"]
            model.node(
                kind.op,
                self._names(node),
                [f"y{node}", *further],
                domain=kind.domain,
                attributes=kind.attributes,
            )
            for name, _, fed in caches:
                model.outputs[name] = Tensor(_TYPES[fed.dtype], fed.shape)
        floats = [fed.dtype for fed in kind.inputs if fed is not None and fed.dtype.startswith("float")]
        model.outputs["y0"] = Tensor(_TYPES[floats[0]], None)
        return model

    def _bind(self) -> None:
        """Each array once in the device's memory, where the nodes' own differ in their place alone: to make
        numbers takes longer than to time them. A cache is read and written in place.
        """
        make, values = onnxruntime().OrtValue.ortvalue_from_numpy, dict[str, Any]()
        arrays = [None if fed is None else self._array(fed) for fed in self.kind.inputs]
        for node in range(self.nodes):
            for name, fed, array in zip(self._names(node), self.kind.inputs, arrays, strict=True):
                if fed is not None and name not in values:
                    # Lengths stay in the processor's memory, where kernels read them.
                    place = "cpu" if fed.dtype == "int32" and not fed.shape else self._device
                    values[name] = make(array, place, 0)
                    self._binding.bind_ortvalue_input(name, values[name])
            for output, name, _ in self._caches(node):
                self._binding.bind_ortvalue_output(output, values[name])
        self._binding.bind_output("y0", self._device)
        self._kept += values.values()

    def _array(self, fed: Fed) -> NDArray[Any]:
        """Ids and constants as they are said; of weights bytes that are numbers between 1e-19 and 2."""
        if fed.dtype == "int64":
            return self._generator.integers(0, int(fed.last) + 1, fed.shape).astype(np.int64)
        if fed.role == "shared":
            return np.full(fed.shape, fed.last, fed.dtype)
        found = self._generator.integers(LEAST_BYTE, LAST_BYTE, fed.nbytes, np.uint8)
        return found.view(fed.dtype).reshape(fed.shape)

    def time(self, *, seconds: float, passes: int) -> list[float]:
        """Seconds of each of ``passes`` over all nodes or more, in so many ``seconds``."""
        found: list[float] = []
        clock = time.perf_counter
        with graph_errors_are_typed(f"{self.kind.operation.op} cannot be timed"):
            self._run()
            begun = clock()
            while len(found) < passes or clock() - begun < seconds:
                start = clock()
                self._run()
                found.append(clock() - start)
        return found

    def _run(self) -> None:
        self.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()


def _count(kind: NodeKind, *, far: bool) -> int:
    work = kind.operation
    each = sum(fed.nbytes for fed in kind.inputs if fed is not None and fed.role != "shared")
    node_s = max(work.work / _WORK, (work.read + work.moved) / _BYTES, _LAUNCH_S)
    nodes = min(int(_PASS_S / node_s), MOST_NODES)
    if far and each:
        nodes = max(nodes, min(-(-FAR_BYTES // each), MOST_NODES))
    return max(nodes, 1)
