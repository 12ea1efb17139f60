"""ONNX Runtime in node: the bundle of standard operators, one row at a time, with its caches."""

from pathlib import Path
from typing import Any

from ..javascript import run_node
from ..kinds import ALL

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("onnxruntime-node@1.30.0",)
ARTIFACTS, KINDS = ("onnx",), ALL


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Its graphs, greedily."""
    return run_node("node_graphs.mjs", artifact, task, NPM)
