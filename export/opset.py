"""The operator set and IR version of exported graphs, chosen for the ONNX Runtime that must read them.

The builders need opset 21 (block-wise ``QuantizeLinear``) and nothing newer. The oldest version that does the
work is the one that most runtimes read, so a newer runtime does not raise it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..errors import MissingDependency


@dataclass(frozen=True)
class Opset:
    """``version`` of the default ONNX domain and the file format's ``ir_version``."""

    version: int
    ir_version: int


# Newest first: the first ONNX Runtime with 2-bit MatMulNBits and uint8 GatherBlockQuantized, and what to
# write for it.
_SUPPORTED = (((1, 23), Opset(21, 10)),)
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


def opset_for(runtime: str) -> Opset:
    """What to write for ONNX Runtime ``runtime`` (``"1.23.2"``).

    Raises:
        MissingDependency: the runtime is too old for the graphs of this version, or its version does not
        parse.
    """
    match = re.match(r"(\d+)\.(\d+)", runtime)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    for oldest, opset in _SUPPORTED:
        if release >= oldest:
            return opset
    first = ".".join(map(str, _SUPPORTED[-1][0]))
    raise MissingDependency(
        f"ONNX Runtime {runtime} is older than {first}, the first that runs these graphs",
        fix=f'update it with: pip install "onnxruntime>={first}"',
    )
