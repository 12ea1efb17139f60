"""ONNX Runtime in Chromium, on WebGPU: the bundle of standard operators, one row at a time, with its caches.

The adapter is SwiftShader's, in software, also where there is a GPU: what is compared is the arithmetic of
WebGPU's shaders, and nothing is said about speed. A cell takes 10 to 30 s, most of it compiling shaders, so
there is a family for each shape of graph.
"""

from pathlib import Path
from typing import Any

from ..chromium import run_page
from ..kinds import ALL

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("onnxruntime-web@1.30.0",)
ARTIFACTS, KINDS = ("onnx",), ALL
FAMILIES = (
    *("llama", "mistral", "qwen3", "gemma3_text", "gpt2", "llama with a head of 4 bits"),
    *("qwen3_moe", "gpt_oss", "lfm2", "mamba"),
    *("bert", "distilbert", "vit", "clip_text_model", "t5", "bart", "whisper"),
)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Its graphs, greedily."""
    return run_page("browser_graphs.mjs", artifact, {"task": task, "provider": "webgpu"}, NPM)
