"""onnxruntime-genai: its model builder and its runtime."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, StepwiseEngine

TITLE = "onnxruntime-genai"
PACKAGES = (
    "onnxruntime-genai==0.18.0",
    "onnxruntime==1.32.0",
    "onnx",
    "onnx-ir",
    "transformers==5.24.0",
    "torch",
    "safetensors",
)
DISTRIBUTIONS = ("onnxruntime-genai", "onnxruntime")
VARIANTS = {
    "int4": DecoderVariant("int4", 4, 4),
    "int8": DecoderVariant("int8", 8, 8),
}


def convert(task: ConversionTask, variant: str) -> None:
    """Run the builder, with the fast integer kernels and the subject's group size."""
    options = [f"int4_block_size={task.group_size}", "int4_accuracy_level=4"]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(task.checkpoint), "-o", str(task.artifact), "-p", variant, "-e", "cpu"]
    command += ["-c", str(task.artifact / "cache"), "--extra_options", *options]
    subprocess.run(command, check=True)


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The model and its tokenizer, with the threads set explicitly."""
    import numpy as np
    import onnxruntime_genai as genai

    config = genai.Config(str(artifact))
    session = {"intra_op_num_threads": settings.threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)
    genai.Tokenizer(model)
    search = {"do_sample": False, "min_length": settings.context, "max_length": settings.context}
    running: list[Any] = []

    def first(ids: Sequence[int]) -> int:
        running.clear()  # its cache is freed before the next one is made
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(**search)
        running.append(genai.Generator(model, parameters))
        running[0].append_tokens(np.array(ids, np.int32))
        return following(-1)

    def following(token: int) -> int:
        running[0].generate_next_token()
        return int(running[0].get_next_tokens()[0])

    return StepwiseEngine(first, following)
