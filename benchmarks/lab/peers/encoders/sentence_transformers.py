"""sentence-transformers: its backends torch, ONNX and OpenVINO, in float32 and in their int8 forms.

Every variant is made by the functions that sentence-transformers documents for it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ..contract import EmbedSentences, EncoderConversionTask

TITLE = "sentence-transformers"
PACKAGES = (
    "sentence-transformers[onnx,openvino]==5.7.0",
    "transformers==4.57.6",
    "onnxruntime==1.32.0",
    "openvino==2026.4.1",
    "nncf==3.4.0",
    "torch",
    "datasets",
)
DISTRIBUTIONS = ("sentence-transformers", "torch", "transformers", "onnxruntime", "openvino", "nncf")
# By variant: the file in the directory of its backend, where the tool would not choose it by itself.
VARIANTS = {
    "torch": "",
    "torch-bf16": "",
    "onnx": "onnx/model_O3.onnx",
    "onnx-int8": "onnx/model_qint8_avx512_vnni.onnx",
    "openvino": "",
    "openvino-int8": "openvino/openvino_model_qint8_quantized.xml",
}


def convert(task: EncoderConversionTask, variant: str) -> None:
    """Make the directory of the variant's backend, which variants share; texts calibrate static scales."""
    from sentence_transformers import (
        SentenceTransformer,
        export_dynamic_quantized_onnx_model,
        export_optimized_onnx_model,
    )

    backend = variant.partition("-")[0]
    target, part = task.artifact / backend, task.artifact / f".{backend}.partial"
    if target.exists():
        return
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(task.checkpoint, part)
    if backend != "torch":
        SentenceTransformer(str(part), backend=backend).save_pretrained(str(part))
        loaded = SentenceTransformer(str(part), backend=backend)
        if backend == "onnx":
            export_optimized_onnx_model(loaded, "O3", str(part))
            export_dynamic_quantized_onnx_model(loaded, "avx512_vnni", str(part))
        else:
            _quantize_openvino(loaded, part, json.loads(task.calibration.read_text(encoding="utf-8")))
    part.rename(target)


def _quantize_openvino(loaded: Any, directory: Path, texts: list[str]) -> None:
    """What ``export_static_quantized_openvino_model`` does, with texts that need no download."""
    from datasets import Dataset
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    tokens = Dataset.from_dict({"text": texts}).map(
        lambda row: loaded.tokenizer(row["text"], padding="max_length", max_length=384, truncation=True),
        remove_columns=["text"],
    )
    config = OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(texts)))
    work = directory / "quantized"
    OVQuantizer(loaded[0].auto_model).quantize(
        calibration_dataset=tokens, save_directory=str(work), ov_config=config
    )
    target = directory / VARIANTS["openvino-int8"]
    (written,) = work.rglob("*.xml")
    shutil.move(written, target)
    shutil.move(written.with_suffix(".bin"), target.with_suffix(".bin"))
    shutil.rmtree(work)


def load(artifact: Path, variant: str, threads: int) -> EmbedSentences:
    """The variant as a user loads it, with its threads set explicitly."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    backend = variant.partition("-")[0]
    options: dict[str, Any] = {"file_name": VARIANTS[variant]} if VARIANTS[variant] else {}
    if backend == "torch":
        options["torch_dtype"] = torch.bfloat16 if variant == "torch-bf16" else torch.float32
    elif backend == "openvino":
        options["ov_config"] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    else:
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads, session.inter_op_num_threads = threads, 1
        options |= {"session_options": session, "provider": "CPUExecutionProvider"}
    chosen = {} if backend == "torch" else {"backend": backend}
    model = SentenceTransformer(str(artifact / backend), device="cpu", model_kwargs=options, **chosen)
    return lambda sentences, batch_size: model.encode(
        sentences, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
    )
