"""sentence-transformers as a peer: its backends torch, ONNX and OpenVINO, in float32 and in their int8 forms.

Runs in an environment of its own, by its path, and imports nothing of edgepress:

    python -m venv ENV && ENV/bin/pip install "sentence-transformers[onnx,openvino]" datasets
    ENV/bin/python benchmarks/lab/peers/sentence_transformers_peer.py prepare MODEL FOLDER TEXTS.json
    ENV/bin/python benchmarks/lab/peers/sentence_transformers_peer.py serve FOLDER VARIANT --threads 2

``prepare`` makes every variant by the functions that sentence-transformers documents for it. ``serve``
answers each line ``{"sentences": […], "batch_size": 32}`` on stdin with a line ``{"seconds": …,
"cpu_seconds": …}``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VARIANTS = ("torch", "torch-bf16", "onnx", "onnx-int8", "openvino", "openvino-int8")
DISTRIBUTIONS = ("sentence-transformers", "torch", "transformers", "onnxruntime", "openvino", "nncf")
# The file of a variant inside its directory, where sentence-transformers would not choose it by itself.
FILES = {
    "onnx": "onnx/model_O3.onnx",
    "onnx-int8": "onnx/model_qint8_avx512_vnni.onnx",
    "openvino-int8": "openvino/openvino_model_qint8_quantized.xml",
}


def prepare(model: Path, folder: Path, texts: list[str]) -> None:
    """Make the ONNX and OpenVINO variants of ``model`` in ``folder``; ``texts`` calibrate static scales."""
    from sentence_transformers import (
        SentenceTransformer,
        export_dynamic_quantized_onnx_model,
        export_optimized_onnx_model,
    )

    for backend in ("onnx", "openvino"):
        target = folder / backend
        if target.exists():
            continue
        part = folder / f".{backend}.partial"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(model, part)
        SentenceTransformer(str(part), backend=backend).save_pretrained(str(part))
        loaded = SentenceTransformer(str(part), backend=backend)
        if backend == "onnx":
            export_optimized_onnx_model(loaded, "O3", str(part))
            export_dynamic_quantized_onnx_model(loaded, "avx512_vnni", str(part))
        else:
            _quantize_openvino(loaded, part, texts)
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
    target = directory / FILES["openvino-int8"]
    (written,) = work.rglob("*.xml")
    shutil.move(written, target)
    shutil.move(written.with_suffix(".bin"), target.with_suffix(".bin"))
    shutil.rmtree(work)


def load(folder: Path, variant: str, threads: int) -> Any:
    """The variant as a user loads it, with its threads set explicitly."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    backend = variant.partition("-")[0]
    path = str(folder / backend)
    if backend == "torch":
        kind = torch.bfloat16 if variant == "torch-bf16" else torch.float32
        return SentenceTransformer(path, device="cpu", model_kwargs={"torch_dtype": kind})
    options: dict[str, Any] = {"file_name": FILES[variant]} if variant in FILES else {}
    if backend == "openvino":
        options["ov_config"] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    else:
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads, session.inter_op_num_threads = threads, 1
        options |= {"session_options": session, "provider": "CPUExecutionProvider"}
    return SentenceTransformer(path, device="cpu", backend=backend, model_kwargs=options)


def serve(folder: Path, variant: str, threads: int) -> None:
    """Answer the lines of stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    model = load(folder, variant, threads)
    found = {name: version(name) for name in DISTRIBUTIONS}
    print(json.dumps({"variant": variant, "threads": threads, "versions": found}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began, cpu = time.perf_counter(), time.process_time()
        vectors = model.encode(
            job["sentences"], batch_size=job["batch_size"], show_progress_bar=False, convert_to_numpy=True
        )
        answer: dict[str, Any] = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
        }
        if job.get("vectors"):
            answer["vectors"] = vectors.astype("float64").tolist()
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("prepare")
    made.add_argument("model", type=Path)
    made.add_argument("folder", type=Path)
    made.add_argument("texts", type=Path, help="a JSON list of texts that calibrate static scales")
    served = verbs.add_parser("serve")
    served.add_argument("folder", type=Path)
    served.add_argument("variant", choices=VARIANTS)
    served.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    if asked.verb == "serve":
        serve(asked.folder, asked.variant, asked.threads)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not (asked.folder / "torch").exists():
        shutil.copytree(asked.model, asked.folder / "torch")
    prepare(asked.model, asked.folder, json.loads(asked.texts.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
