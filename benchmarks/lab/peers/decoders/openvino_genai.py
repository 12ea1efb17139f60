"""OpenVINO GenAI: models exported by optimum-intel with NNCF's weight compression."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, TimedTokens

TITLE = "OpenVINO GenAI"
PACKAGES = (
    "openvino==2026.4.1",
    "openvino-genai==2026.4.1.0",
    "optimum-intel==2.2.0",
    "nncf==3.4.0",
    "torch",
)
DISTRIBUTIONS = ("openvino", "openvino-genai", "optimum-intel", "nncf")
VARIANTS = {
    "int4": DecoderVariant("int4", 4, 8),
    "int8": DecoderVariant("int8", 8, 8),
}


def convert(task: ConversionTask, variant: str) -> None:
    """Export with symmetric int4 in the subject's groups, or with int8."""
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino"]
    command += ["--model", str(task.checkpoint), "--task", "text-generation-with-past"]
    command += ["--weight-format", variant]
    if variant == "int4":
        command += ["--sym", "--ratio", "1.0", "--group-size", str(task.group_size)]
    subprocess.run([*command, str(task.artifact)], check=True)


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The pipeline on the CPU with the threads set explicitly."""
    import openvino_genai

    return _Pipeline(openvino_genai.LLMPipeline(str(artifact), "CPU", INFERENCE_NUM_THREADS=settings.threads))


class _Pipeline:
    """Its loop is in C++; a streamer sees each token as it comes."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def generate(self, ids: Sequence[int], new_tokens: int) -> TimedTokens:
        """See :class:`DecodingEngine`."""
        import numpy as np
        import openvino
        import openvino_genai

        found = TimedTokens()

        class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
            def write(self, token: int | list[int]) -> Any:
                for one in [token] if isinstance(token, int) else token:
                    found.add(one)
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                """Nothing is left over."""

        row = np.array([ids], np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(row), openvino.Tensor(np.ones_like(row)))
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        config.apply_chat_template = False
        self._pipeline.generate(inputs, config, Streamer())
        return found
