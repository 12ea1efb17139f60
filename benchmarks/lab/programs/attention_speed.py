"""Attention of one layer in ONNX Runtime: scores in tiles or in whole rows, and where they are multiplied.

    python -m edgepress.benchmarks.lab.programs.attention_speed [benchmarks/lab/results] [--rounds 40]

One ``GroupQueryAttention`` node of random numbers for each way, over a float32 cache that is full up to the
tokens that are new; all variants interleaved in one process. What
:mod:`edgepress.export.graph.attention.attention` chooses by.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ....export.graph.attention.attention import NO_SINK, SINK_AT
from ....runtime.session.session import open_session, owned_value
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.attention_speed benchmarks/lab/results"
# Layers by name: heads, key/value heads, channels of a head.
LAYERS = {"SmolLM2-135M": (9, 3, 64), "Llama of 0.9 B": (32, 8, 64), "Llama 3 8B": (32, 8, 128)}
# New tokens, and those in the cache before.
SETTINGS = ((1, 127), (1, 1023), (1, 4095), (128, 0), (128, 896), (256, 768))
THREADS = (1, 2)


@dataclass(frozen=True)
class Way:
    """How the node is asked: with a sink of no weight or not, and by what it multiplies the scores."""

    name: str
    sink: bool
    whole: bool


WAYS = (
    Way("tiles", sink=False, whole=False),
    Way("tiles, factor 1", sink=False, whole=True),
    Way("rows", sink=True, whole=False),
    Way("rows, factor 1", sink=True, whole=True),
)


class Timed:
    """A session over the node, and what it is given."""

    def __init__(self, path: Path, way: Way, layer: str, setting: tuple[int, int], threads: int) -> None:
        heads, kv_heads, size = LAYERS[layer]
        new, before = setting
        rng, cache = np.random.default_rng(0), (1, kv_heads, new + before, size)
        _write(path, way, layer, setting)
        self._session = open_session(path, threads=threads)
        self._binding = self._session.io_binding()
        packed = rng.standard_normal((1, new, (heads + 2 * kv_heads) * size), np.float32)
        self._binding.bind_cpu_input("qkv", packed)
        for part in ("key", "value"):
            held = owned_value(rng.standard_normal(cache, np.float32))
            self._binding.bind_ortvalue_input(f"past_{part}", held)
            self._binding.bind_ortvalue_output(part, held)
        self._binding.bind_output("out")

    def microseconds(self) -> float:
        """Of one run."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return 1e6 * (time.perf_counter() - start)

    def output(self) -> NDArray[np.float32]:
        """Of the last run, ``[1, new, heads · channels]``."""
        found: NDArray[np.float32] = self._binding.copy_outputs_to_cpu()[-1]
        return found


def _write(path: Path, way: Way, layer: str, setting: tuple[int, int]) -> None:
    heads, kv_heads, size = LAYERS[layer]
    new, total = setting[0], sum(setting)
    cache = (1, kv_heads, total, size)
    inputs = [_value("qkv", 1, new, (heads + 2 * kv_heads) * size)]
    inputs += [_value("past_key", *cache), _value("past_value", *cache)]
    angles = np.arange(total, dtype=np.float32)[:, None] / np.arange(1, size // 2 + 1, dtype=np.float32)
    held = {
        "last": np.array([total - 1], np.int32),
        "total": np.array(total, np.int32),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "sink": np.full(heads, NO_SINK, np.float32),
    }
    constants = {name: _constant(name, array) for name, array in held.items()}
    given = [
        inputs[0],
        None,
        None,
        *inputs[1:],
        *(constants[name] for name in ("last", "total", "cos", "sin")),
    ]
    given += [*[None] * (SINK_AT - len(given)), constants["sink"] if way.sink else None]
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1}
    attributes["scale"] = 1.0 if way.whole else size**-0.5
    node = ir.node("GroupQueryAttention", given, attributes, domain="com.microsoft", num_outputs=3)
    shapes = {"out": (1, new, heads * size), "key": cache, "value": cache}
    for output, (name, shape) in zip(node.outputs, shapes.items(), strict=True):
        output.name, output.shape, output.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 21, "com.microsoft": 1}
    graph = ir.Graph(
        inputs,
        node.outputs,
        nodes=[node],
        initializers=list(constants.values()),
        opset_imports=opsets,
        name="attention",
    )
    ir.save(ir.Model(graph, ir_version=10), path)


def _value(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _constant(name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)


def measured(layer: str, setting: tuple[int, int], threads: int, rounds: int) -> list[str]:
    """A cell for each way: the median of the rounds, in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        arms = [
            Timed(Path(folder) / f"{index}.onnx", way, layer, setting, threads)
            for index, way in enumerate(WAYS)
        ]
        rounds = rounds if setting[0] == 1 else max(3, rounds // 4)
        taken = [[arm.microseconds() for arm in arms] for _ in range(rounds + 1)][1:]
    return [f"{median(column):.0f}" for column in zip(*taken, strict=True)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    rows = [
        [
            layer,
            str(new),
            str(new + cached),
            str(threads),
            *measured(layer, (new, cached), threads, asked.rounds),
        ]
        for layer in LAYERS
        for new, cached in SETTINGS
        for threads in THREADS
    ]
    notes = [
        "Microseconds of one layer: medians, all variants interleaved in one process, the same nodes each "
        "time. Heads, key/value heads and channels: "
        + "; ".join(f"{name} {', '.join(map(str, sizes))}" for name, sizes in LAYERS.items())
        + ".",
        "Tiles: the kernel's default. Rows: with an attention sink of zero weight. Factor 1: the scale of "
        "the scores is folded into the rope tables. Exports with --for standard use rows and factor 1.",
        f"Load average: {before:.1f} before, {os.getloadavg()[0]:.1f} after.",
    ]
    header = ["layer", "new tokens", "of a total", "threads", *(way.name for way in WAYS)]
    path, title = asked.results / "prefill.md", "Attention of one layer, in microseconds"
    write_table(path, title, COMMAND, header, rows, notes, page="Prefill")


if __name__ == "__main__":
    main()
