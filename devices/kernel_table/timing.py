"""A fresh process that times cases with a fixed number of threads.

``python -m edgepress.devices.kernel_table.timing`` reads one request from stdin and writes a JSON line for
each result. Libraries that print to stdout cannot break this: the answers have a descriptor of their own.
"""

import json
import mmap
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from ...errors import EdgepressError
from ...runtime.kernels.library import instructions
from ...runtime.session.session import open_session
from .cases import cases
from .chain import Chain
from .small_model import FLOAT, SmallModel, Tensor
from .stream import Streams

STOCK = "stock.bin"
_SECONDS, _PASSES = 0.005, 5
# Cases between two looks at how fast weights come from memory: on a shared machine that moves by the minute.
_LOOK_EVERY = 250
_VALUES, _NODES = 64, 256


def answer(request: dict[str, Any], channel: Any) -> None:
    """Time what the request names; a case that fails is said with its reason."""

    def say(**message: Any) -> None:
        print(json.dumps(message), file=channel, flush=True)

    folder, threads = Path(request["folder"]), request["threads"]
    import_module("tokenizers")
    import_module("edgepress.runtime.engine.decoder")
    _trivial(folder, 1, 1, threads)
    say(ready=psutil.Process().memory_info().rss)
    fixed = request["fixed"]
    if fixed is None:
        fixed = _fixed(folder, threads)
        say(fixed=fixed, choose=_choose())
    with (folder / STOCK).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    stock = np.frombuffer(mapped, np.uint8)
    streams = Streams(stock, folder / STOCK, threads, fixed["run"]) if instructions() != "none" else None
    if streams is not None:
        for found in streams.rounds(request["spans"], request["rounds"], request["stream_s"]):
            say(stream=found)
    known, at, scratch = cases(), 0, None
    for count, index in enumerate(request["cases"]):
        if streams is not None and count % _LOOK_EVERY == _LOOK_EVERY - 1:
            say(stream=streams.time(len(stock)))
        case = known[index]
        cached = any(fed is not None and fed.role == "cache" for fed in case.kind.inputs)
        if cached and scratch is None:
            scratch = stock.copy()  # caches lie in plain memory, weights in a mapped file
        source, far = scratch if cached and scratch is not None else stock, case.reach == "far"
        try:
            chain = Chain(case.kind, threads, source, folder / STOCK, far=far, start=at)
            taken = chain.time(seconds=_SECONDS, passes=_PASSES)
            at = chain.at if far else at
        except EdgepressError as error:
            say(case=index, error=f"{error.what}: {error.why}"[:500])
            continue
        say(case=index, nodes=chain.nodes, bound=chain.bound, median=median(taken), least=min(taken))


def _trivial(folder: Path, values: int, nodes: int, threads: int) -> float:
    """Seconds of a run with so many bound values, and so many nodes that hardly compute."""
    model, path = SmallModel(), folder / "fixed.onnx"
    for index in range(values):
        model.inputs[f"x{index}"] = Tensor(FLOAT, (1,))
        model.outputs[f"o{index}"] = Tensor(FLOAT, (1,))
        model.node("Neg", [f"x{index}"], [f"o{index}"])
    name = "x0"
    for index in range(nodes):
        model.node("Neg", [name], [f"n{index}"])
        name = f"n{index}"
    path.write_bytes(model.serialized())
    session = open_session(path, threads=threads)
    arrays = [np.ones(1, np.float32) for _ in range(2 * values)]
    binding = session.io_binding()
    for index in range(values):
        binding.bind_cpu_input(f"x{index}", arrays[index])
        out = arrays[values + index]
        binding.bind_output(f"o{index}", "cpu", 0, np.float32, out.shape, out.ctypes.data)
    taken = []
    for _ in range(50):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        taken.append(time.perf_counter() - start)
    return median(taken)


def _fixed(folder: Path, threads: int) -> dict[str, float]:
    """Seconds of a run, of a bound value more, of a node more."""
    one, values, nodes = (_trivial(folder, *sizes, threads) for sizes in ((1, 1), (_VALUES, 1), (1, _NODES)))
    node = max((nodes - one) / (_NODES - 1), 1e-9)
    value = max((values - one) / (_VALUES - 1) - node, 1e-9)
    return {"run": max(one - 2 * node - value, 1e-9), "value": value, "node": node, "call": _call()}


def _call() -> float:
    """Seconds of what the runtime does in Python for one token, beside the run of its graph."""
    row, mask, taken = np.zeros(64, np.float32), np.ones((1, 4096), np.int64), []
    for length in range(1, 200):
        start = time.perf_counter()
        ids = np.array([int(row.argmax())])
        bool((ids < 0).any() or (ids >= 64).any())
        np.ascontiguousarray(mask[:, :length])
        taken.append(time.perf_counter() - start)
    return max(median(taken), 1e-9)


def _choose() -> float:
    """Seconds to find the largest of a million numbers."""
    numbers = np.random.default_rng(0).random(1 << 20, np.float32)
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        numbers.argmax()
        taken.append(time.perf_counter() - start)
    return median(taken) * 1e6 / (1 << 20)


def main() -> None:
    """Answer one request."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer(json.loads(sys.stdin.readline()), channel)


if __name__ == "__main__":
    main()
