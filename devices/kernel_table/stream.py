"""What the nodes of a model find in the caches, by the bytes that its run reads: each finds what the weights
of the others have left there.

Products of one row stream weights, as a model does for each token. Beside them are timed: what a small node
between them costs, whose code and numbers have left the caches, and what a token costs in Python.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.graph_sections import DecoderSection, KVLayer
from ...runtime.engine.decoder import Decoder
from ...runtime.session.session import open_session
from . import node_kinds
from .operation import STREAMED
from .small_model import FLOAT, INT64, UINT8, SmallModel, Tensor

_WIDTH, _ALIGNED = STREAMED.sizes[1], 64
_BYTES, _LEAST, _MOST = 2e9, 5, 40  # that are read for one answer, and its passes
_SPIN = 2e-3  # longer than the threads of another session stay awake
_VOCABULARY, _CAPACITY = 64, 256


class Tokens:
    """Greedy decoding with a graph that looks up a row: what a token costs beside its model."""

    def __init__(self, file: Path) -> None:
        section = DecoderSection(
            layers=[KVLayer(kv_heads=1, head_dim=16)], context_length=_CAPACITY, vocab_size=_VOCABULARY
        )
        model, past = SmallModel(file.name), "past_key_values.0."
        model.weights["table"] = Tensor(FLOAT, (_VOCABULARY, _VOCABULARY), 4 * _VOCABULARY**2, 0)
        names = ("input_ids", "attention_mask", "logits_to_keep")
        model.inputs |= {name: Tensor(INT64, None) for name in names}
        model.inputs |= {past + part: Tensor(FLOAT, None) for part in ("key", "value")}
        model.outputs |= {f"present.0.{part}": Tensor(FLOAT, None) for part in ("key", "value")}
        model.outputs["logits"] = Tensor(FLOAT, (1, 1, _VOCABULARY))
        model.node("Gather", ["table", "input_ids"], ["logits"])
        for part in ("key", "value"):
            model.node("Identity", [past + part], [f"present.0.{part}"])
        path = file.with_name("tokens.onnx")
        path.write_bytes(model.serialized())
        self._decoder = Decoder(open_session(path, threads=1), section)
        self._row = self._decoder.prefill([1], new_tokens=_CAPACITY - 1)

    def one(self) -> float:
        """Seconds of a token."""
        if self._decoder.length == _CAPACITY:
            self._decoder.rewind(1)
        start = time.perf_counter()
        self._row = self._decoder.step(int(self._row.argmax()))
        return time.perf_counter() - start


class Stream:
    """Products over all of ``stock``, and the same with a norm after every second one."""

    def __init__(self, stock: NDArray[np.uint8], folder: Path, threads: int, tokens: Tokens) -> None:
        self._stock, self._tokens = stock, tokens
        self._product = node_kinds.quantized(1, _WIDTH, _WIDTH, int(STREAMED.form))
        self._norm = node_kinds.norm("SumRootMeanSquareNorm", 1, _WIDTH)
        self._each = -(-self._product.operation.read // _ALIGNED) * _ALIGNED
        self.count = max(2, len(stock) // self._each // 2 * 2)
        self._row = np.ones((1, 1, _WIDTH), np.float32)
        self._scales = np.ones((self.count // 2, _WIDTH), np.float32)
        self._plain, self._mixed = (self._opened(folder, threads, small=small) for small in (False, True))

    def _opened(self, folder: Path, threads: int, *, small: bool) -> tuple[Any, Any]:
        model, tiles = SmallModel(), self._product.operation.read
        model.inputs["x"] = Tensor(FLOAT, self._row.shape)
        places: dict[str, tuple[int, Tensor]] = {"x": (self._row.ctypes.data, model.inputs["x"])}
        for index in range(self.count):
            weights = f"w{index}"
            places[weights] = (self._stock.ctypes.data + index * self._each, Tensor(UINT8, (tiles,)))
            self._add(model, self._product, ["x", weights], f"y{index}")
            if small and index % 2:
                scale = f"s{index}"
                places[scale] = (self._scales[index // 2].ctypes.data, Tensor(FLOAT, (_WIDTH,)))
                self._add(model, self._norm, [scale, "x", f"y{index}"], f"z{index}")
        model.inputs |= {name: tensor for name, (_, tensor) in places.items()}
        model.outputs[f"y{self.count - 1}"] = Tensor(FLOAT, None)
        path = folder / "stream.onnx"
        path.write_bytes(model.serialized())
        session = open_session(path, threads=threads)
        binding = session.io_binding()
        for name, (place, tensor) in places.items():
            dtype = np.uint8 if tensor.dtype == UINT8 else np.float32
            binding.bind_input(name, "cpu", 0, dtype, list(tensor.shape or ()), place)
        binding.bind_output(f"y{self.count - 1}", "cpu")
        return session, binding

    @staticmethod
    def _add(model: SmallModel, kind: node_kinds.NodeKind, inputs: list[str], output: str) -> None:
        outputs = [output] if kind.outputs == 1 else [output, f"{output}b"]
        model.node(kind.op, inputs, outputs, domain=kind.domain, attributes=kind.attributes)

    def time(self, run: float) -> dict[str, float]:
        """Medians of several passes, beside the cost of a ``run``: bytes per second of the products, seconds
        of a norm between them, and of a token in Python after them.
        """
        passes = int(min(max(_BYTES / len(self._stock) / 2, _LEAST), _MOST))
        plain: list[float] = []
        mixed: list[float] = []
        tokens: list[float] = []
        for found, (session, binding) in ((plain, self._plain), (mixed, self._mixed)):
            time.sleep(_SPIN)
            session.run_with_iobinding(binding)
            for _ in range(passes):
                start = time.perf_counter()
                session.run_with_iobinding(binding)
                end = time.perf_counter()
                tokens.append(self._tokens.one())
                found.append(end - start)
        products, norms = max(median(plain) - run, 1e-9), median(mixed) - median(plain)
        return {
            "bytes_per_second": self.count * self._product.operation.read / products,
            "between": max(norms / (self.count // 2), 1e-9),
            "token": max(median(tokens) - run, 1e-9),
        }


class Streams:
    """The streams over the first bytes of ``stock``, which ``file`` holds, each opened when it is first
    timed; a ``run`` costs so many seconds beside its nodes.
    """

    def __init__(self, stock: NDArray[np.uint8], file: Path, threads: int, run: float) -> None:
        self._stock, self._folder, self._threads, self._run = stock, file.parent, threads, run
        self._tokens = Tokens(file)
        self._opened: dict[int, Stream] = {}

    def time(self, size: int) -> dict[str, float]:
        """What :meth:`Stream.time` says of the first ``size`` bytes."""
        if size not in self._opened:
            self._opened[size] = Stream(self._stock[:size], self._folder, self._threads, self._tokens)
        return {"working_set": size, **self._opened[size].time(self._run)}

    def rounds(self, sizes: Sequence[int], rounds: int, limit_s: float) -> Iterator[dict[str, float]]:
        """All ``sizes`` so often, or until ``limit_s`` is over: first the largest, as most models are."""
        until = time.perf_counter() + limit_s
        for _ in range(rounds):
            for size in (*sizes[-1:], *sizes[:-1]):
                if time.perf_counter() < until:
                    yield self.time(size)
