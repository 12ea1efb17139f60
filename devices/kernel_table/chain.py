"""``Chain``: several nodes of one kind in one session, timed together.

One node alone would be lost in the cost of a run. Weights and caches of each node lie in a stock of bytes; to
read them from far away, each pass takes others of it, and the stock is larger than the last-level cache.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OutOfResource
from ...runtime.session.session import graph_errors_are_typed, open_session
from .node_kinds import Fed, NodeKind
from .small_model import SmallModel, Tensor

# The bytes of weights: as float16 and float32 between 1e-19 and 2, and of all sorts as codes. They differ,
# since the runtime packs equal weights once.
LEAST_BYTE, LAST_BYTE = 0x20, 0x3F
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
_ALIGNED = 64
# About how long a pass takes: enough that a run's own cost is small beside it. The rates are of a slow core.
_PASS_S, _WORK, _BYTES, _MOST_NODES = 2e-4, 5e10, 2e10, 32
_LONG, _VERY_LONG = 2, 10
# What nodes read again and again lies in a core's own cache, if it fits there.
NEAR_BYTES = 1 << 19


class Chain:
    """Nodes of ``kind``, as many as a pass needs.

    Args:
        far: read weights and caches from beyond the caches.
        stock: bytes that weights and caches are taken from, and ``file``, the same bytes on disk for those
            that the runtime packs.
        start: where in the stock the first node far away reads: where another chain stopped, since what
            that one has just read is in the caches.
    """

    def __init__(
        self, kind: NodeKind, threads: int, stock: NDArray[np.uint8], file: Path, *, far: bool, start: int = 0
    ) -> None:
        self.kind, self._stock, self._far = kind, stock, far
        self._own = [(at, fed) for at, fed in enumerate(kind.inputs) if fed and fed.role in ("own", "cache")]
        self.packed = any(fed is not None and fed.role == "packed" for fed in kind.inputs)
        each = sum(fed.nbytes for fed in kind.inputs if fed is not None and fed.role != "shared")
        if each > len(stock):
            raise OutOfResource(
                f"{kind.op} of {each:,} bytes is larger than the memory that is measured with"
            )
        self.nodes = _count(kind, each, len(stock), packed_far=self.packed and far)
        self.at = start if far else 0
        self._end = len(stock) if far else max(NEAR_BYTES, each + _ALIGNED * len(self._own))
        self._kept: list[Any] = []
        path = file.with_name("chain.onnx")
        path.write_bytes(self._model(file).serialized())
        self.session = open_session(path, threads=threads)
        self._binding = self.session.io_binding()
        for at, fed in enumerate(kind.inputs):
            if fed is not None and fed.role == "shared":
                array = _shared_array(fed)
                self._kept.append(array)
                self._binding.bind_cpu_input(f"s{at}", array)
        self._bind_own()
        self._binding.bind_output("y0", "cpu")

    @property
    def bound(self) -> int:
        """Values that are bound."""
        return 1 + len(self._kept) + len(self._own) * self.nodes

    def _model(self, file: Path) -> SmallModel:
        model, kind = SmallModel(file.name), self.kind
        for at, fed in enumerate(kind.inputs):
            if fed is not None and fed.role == "shared":
                model.inputs[f"s{at}"] = Tensor(_TYPES[fed.dtype], fed.shape)
        offset = 0
        for node in range(self.nodes):
            names = []
            for at, fed in enumerate(kind.inputs):
                name = "" if fed is None else f"s{at}" if fed.role == "shared" else f"w{node}.{at}"
                names.append(name)
                if fed is None or fed.role == "shared":
                    continue
                tensor = Tensor(_TYPES[fed.dtype], fed.shape, fed.nbytes, offset)
                if fed.role == "packed":
                    model.weights[name] = tensor
                    offset += -(-fed.nbytes // 4096) * 4096
                else:
                    model.inputs[name] = tensor
            outputs = [f"y{node}", *self._further_outputs(model, node)]
            model.node(kind.op, names, outputs, domain=kind.domain, attributes=kind.attributes)
        model.outputs["y0"] = Tensor(_TYPES["float32"], None)
        return model

    def _further_outputs(self, model: SmallModel, node: int) -> list[str]:
        caches = [fed for _, fed in self._own if fed.role == "cache"]
        names = [f"p{node}.{index}" for index in range(len(caches))]
        for name, fed in zip(names, caches, strict=True):
            model.outputs[name] = Tensor(_TYPES[fed.dtype], fed.shape)
        if not caches and self.kind.outputs > 1:
            return [*[""] * (self.kind.outputs - 2), f"z{node}"]
        return names

    def _bind_own(self) -> None:
        base = self._stock.ctypes.data
        for node in range(self.nodes):
            caches = 0
            for at, fed in self._own:
                size = -(-fed.nbytes // _ALIGNED) * _ALIGNED
                if self.at + size > self._end:
                    self.at = 0
                place = ("cpu", 0, np.dtype(fed.dtype).type, list(fed.shape), base + self.at)
                self._binding.bind_input(f"w{node}.{at}", *place)
                if fed.role == "cache":
                    self._binding.bind_output(f"p{node}.{caches}", *place)
                    caches += 1
                self.at += size

    def time(self, *, seconds: float, passes: int) -> list[float]:
        """Seconds of each pass over all nodes: ``passes`` or more, for so many ``seconds``, fewer if long."""
        found: list[float] = []
        clock, run = time.perf_counter, self.session.run_with_iobinding
        with graph_errors_are_typed(f"{self.kind.operation.op} cannot be timed"):
            run(self._binding)
            begun = clock()
            while (passed := clock() - begun) < seconds or len(found) < _needed(passed / seconds, passes):
                if self._far and self._own:
                    self._bind_own()
                start = clock()
                run(self._binding)
                found.append(clock() - start)
        return found


def _needed(times: float, passes: int) -> int:
    """How many passes are enough where they took so many ``times`` what they should: the longer one is, the
    less of it is chance.
    """
    return passes if times < _LONG else 3 if times < _VERY_LONG else 2


def _count(kind: NodeKind, each: int, stock: int, *, packed_far: bool) -> int:
    """Nodes of a pass. Weights that the runtime has packed cannot be changed between passes: one pass must
    read more than the caches hold, as half of the stock is.
    """
    room = max(stock // max(each, 1), 1)
    if packed_far:
        return -(-room // 2)
    work = kind.operation
    node_s = max(work.work / _WORK, (work.read + work.moved) / _BYTES, 1e-7)
    return max(1, min(int(_PASS_S / node_s), _MOST_NODES, room))


def _shared_array(fed: Fed) -> NDArray[Any]:
    if fed.steps:
        return np.arange(fed.shape[0], dtype=fed.dtype) * int(fed.last)
    if fed.dtype == "int64":
        ids = np.random.default_rng(0).integers(0, int(fed.last) + 1, fed.shape)
        return ids.astype(np.int64)
    return np.full(fed.shape, fed.last, fed.dtype)
