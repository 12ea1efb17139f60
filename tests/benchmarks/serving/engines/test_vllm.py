"""What vLLM's file says without vLLM: the command, what is refused, and what its log tells."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.serving.contract import ServingTask
from edgepress.benchmarks.serving.engines import vllm

TASK = ServingTask(Path("/models/w4"), "name", 8000, 256, 32, 4, 1 << 30)
TENSORS: dict[str, Any] = {"quant_method": "compressed-tensors"}
CACHE = {"type": "int", "num_bits": 8}


def test_the_command_serves_on_the_loopback_with_room_for_all() -> None:
    words = vllm.command("/env/bin/vllm", TASK)
    assert words[:3] == ["/env/bin/vllm", "serve", "/models/w4"]
    options = dict(itertools.pairwise(words))
    assert options["--host"] == "127.0.0.1" and options["--port"] == "8000"
    assert options["--max-num-seqs"] == "32" and options["--max-model-len"] == "256"
    assert int(options["--kv-cache-memory-bytes"]) > TASK.cache_bytes
    assert not any("trust" in word for word in words)


def test_a_gpu_that_others_use_and_one_without_a_compiler_serve() -> None:
    """vLLM 0.32 wants 92 % of a GPU free before it starts, and compiles FlashInfer's sampler to warm up."""
    options = dict(itertools.pairwise(vllm.command("/env/bin/vllm", TASK)))
    assert 0 < float(options["--gpu-memory-utilization"]) < 0.2
    assert vllm.variables(TASK)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


def test_its_environments_python_serves_as_well() -> None:
    words = vllm.command("/env/bin/python3", TASK)
    assert words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"] and "/models/w4" in words


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, ""),
        ({"quantization_config": {**TENSORS, "kv_cache_scheme": None, "config_groups": {}}}, ""),
        ({"quantization_config": {"quant_method": "bitnet"}}, "stored as 'bitnet'"),
        (
            {"quantization_config": {**TENSORS, "kv_cache_scheme": CACHE}},
            "FP8 alone",
        ),
        ({"quantization_config": {**TENSORS, "kv_cache_scheme": {**CACHE, "type": "float"}}}, ""),
        ({"quantization_config": {**TENSORS, "config_groups": {"a": {"targets": ["Conv1D"]}}}}, "transposed"),
    ],
)
def test_a_form_that_is_not_served_is_refused(config: dict[str, Any], why: str) -> None:
    assert why in vllm.refusal(config) and bool(vllm.refusal(config)) == bool(why)


def test_the_log_tells_what_it_runs_on() -> None:
    log = (
        "INFO model='/m', dtype=torch.bfloat16, quantization=compressed-tensors, device_config=cpu, seed=0, "
        "compilation_config={'mode': <CompilationMode.DYNAMO_TRACE_ONCE: 2>}\n"
        "INFO [wNa16.py:138] Using CPUWNA16LinearKernel for CompressedTensorsWNA16\n"
    )
    assert vllm.settings(log) == {
        "compiled": "DYNAMO_TRACE_ONCE",
        "kernel": "CPUWNA16LinearKernel",
        "device": "cpu",
        "dtype": "bfloat16",
        "quantization": "compressed-tensors",
    }
    assert vllm.settings("nothing") == {}
