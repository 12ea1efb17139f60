"""sentence-transformers over ONNX Runtime: the layout of hubs."""

from pathlib import Path
from typing import Any

from ..kinds import ENCODER

PACKAGES = (
    *("sentence-transformers==5.7.0", "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6"),
    *("onnxruntime==1.32.0", "torch"),
)
ARTIFACTS, KINDS, ASKED = ("onnx_hub",), (ENCODER,), "embedded"


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """The vectors of texts."""
    from sentence_transformers import SentenceTransformer

    (graph,) = (artifact / "onnx").glob("*.onnx")
    options = {"file_name": f"onnx/{graph.name}", "provider": "CPUExecutionProvider"}
    model = SentenceTransformer(str(artifact), backend="onnx", device="cpu", model_kwargs=options)
    return {"values": model.encode(task["texts"]).tolist()}
