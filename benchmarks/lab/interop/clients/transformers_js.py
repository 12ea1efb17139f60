"""transformers.js in node: the layout of hubs, one row at a time, loaded as its own configuration says."""

from pathlib import Path
from typing import Any

from ..javascript import run_node
from ..kinds import DECODER, ENCODE, MIXTURE, READ_AND_WRITE

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("@huggingface/transformers@4.3.2",)
ARTIFACTS, KINDS = ("onnx_hub",), (DECODER, MIXTURE, *ENCODE, *READ_AND_WRITE)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """By its ``generate``."""
    return run_node("node_library.mjs", artifact, task, NPM)
