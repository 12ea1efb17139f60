"""transformers.js in Chromium, in WebAssembly: the layout of hubs, one row at a time, loaded as its own
configuration says.
"""

from pathlib import Path
from typing import Any

from ..chromium import run_page
from ..kinds import DECODER, ENCODE, MIXTURE, READ_AND_WRITE

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("@huggingface/transformers@4.3.2",)
ARTIFACTS, KINDS = ("onnx_hub",), (DECODER, MIXTURE, *ENCODE, *READ_AND_WRITE)
IMPORTS = {
    "onnxruntime-common": "/packages/onnxruntime-common/dist/esm/index.js",
    "onnxruntime-web/webgpu": "/packages/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
}


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """By its ``generate``."""
    return run_page("browser_library.mjs", artifact, {"task": task, "provider": "wasm"}, NPM, IMPORTS)
