"""ONNX Runtime in Chromium, in WebAssembly: the bundle of standard operators, one row at a time, with its
caches.
"""

from pathlib import Path
from typing import Any

from ..chromium import run_page
from ..kinds import ALL

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("onnxruntime-web@1.30.0",)
ARTIFACTS, KINDS = ("onnx",), ALL


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Its graphs, greedily."""
    return run_page("browser_graphs.mjs", artifact, {"task": task, "provider": "wasm"}, NPM)
