"""sentence-transformers over torch: the checkpoint itself."""

from pathlib import Path
from typing import Any

from ..kinds import ENCODER

PACKAGES = ("sentence-transformers==5.7.0", "transformers==5.24.0", "compressed-tensors==0.20.1", "torch")
ARTIFACTS, KINDS, ASKED = ("checkpoint",), (ENCODER,), "embedded"


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """The vectors of texts."""
    from sentence_transformers import SentenceTransformer
    from transformers import CompressedTensorsConfig

    asked = {"quantization_config": CompressedTensorsConfig(dequantize=True)}  # as the card says
    model = SentenceTransformer(str(artifact), device="cpu", model_kwargs=asked)
    return {"values": model.encode(task["texts"]).tolist()}
