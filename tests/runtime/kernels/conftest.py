"""The sets of instructions that operators are tested with, and a record of what they gave: with
``EDGEPRESS_KERNELS_CASES=FILE`` every test of one operator that runs on the plain kernels leaves its
attributes, inputs and outputs in FILE, for ``replay.c`` to run elsewhere.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from edgepress.runtime.kernels.library import DOMAIN, instructions
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

FILE = os.environ.get("EDGEPRESS_KERNELS_CASES")
Array = NDArray[Any]
SETS = ("plain", "avx2", "avx-vnni", "avx512-vnni", "amx")


@pytest.fixture(params=SETS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each set that this processor has, in its turn."""
    monkeypatch.setenv("EDGEPRESS_KERNELS", request.param)
    if instructions() != request.param:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param


def _tensor(value: Array | None) -> bytes:
    if value is None:
        return b"t 0 0\n\n"
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return f"t {kind} {value.ndim} {' '.join(map(str, value.shape))}\n".encode() + value.tobytes() + b"\n"


def _attributes(node: NodeProto) -> list[bytes]:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return [
        f"{'i' if isinstance(value, int) else 'f'} {name} {value!r}\n".encode()
        for name, value in values.items()
    ]


def _write(graph: GraphProto, inputs: dict[str, Array], outputs: Sequence[Array] | None) -> None:
    assert FILE is not None
    node = graph.node[0]
    attributes = _attributes(node)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer} | inputs
    count = -1 if outputs is None else len(outputs)
    lines = [f"case {node.op_type} {len(attributes)} {len(node.input)} {count}\n".encode(), *attributes]
    lines += [_tensor(held.get(name)) for name in node.input]
    lines += [_tensor(np.asarray(output)) for output in outputs or ()]
    with Path(FILE).open("ab") as file:
        file.writelines(lines)


class _Recording(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session over a model of one node that leaves a case for each run."""

    def __init__(self, model: bytes, *args: Any, **kwargs: Any) -> None:
        self._graph = ModelProto.FromString(model).graph
        super().__init__(model, *args, **kwargs)

    def run(self, names: Any, inputs: dict[str, Array], *args: Any) -> Any:
        alone = len(self._graph.node) == 1 and self._graph.node[0].domain == DOMAIN
        recorded = alone and instructions() == "plain"
        try:
            outputs = super().run(names, inputs, *args)
        except Exception as error:
            if recorded and f"{DOMAIN}: " in str(error):
                _write(self._graph, inputs, None)
            raise
        if recorded:
            _write(self._graph, inputs, outputs)
        return outputs


@pytest.fixture(autouse=FILE is not None)
def record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Recording)
