"""CUDA's libraries, loaded for ONNX Runtime before a session wants them.

Its wheel has none of them. NVIDIA's Python packages, which torch brings with it, are on no path of the
system: they are found where something has loaded them before, torch or this. Without them the runtime makes a
session for the CPU.
"""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any


def load_cuda(runtime: Any) -> str:
    """Load them, those of NVIDIA's packages first; what ``runtime`` prints of those that are missing."""
    said = StringIO()
    with redirect_stdout(said):
        runtime.preload_dlls()
    return " ".join(said.getvalue().split())
