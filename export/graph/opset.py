"""The operator set and IR version of exported graphs, chosen for the ONNX Runtime that must read them.

Decoders need opset 21 (block-wise ``QuantizeLinear``), encoders 23 (``Attention``), and nothing newer. The
oldest version that does the work is the one that most runtimes read, so a newer runtime does not raise it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from ...errors import MissingDependency

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


def installed_runtime() -> str:
    """Version of the installed ONNX Runtime, read without importing it.

    Raises:
        MissingDependency: there is none.
    """
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
    """What to write for ONNX Runtime ``runtime`` (``"1.23.2"``) when the model is a ``kind``.

    Raises:
        MissingDependency: the runtime is too old for the graphs of this version, or its version does not
        parse.
    """
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
