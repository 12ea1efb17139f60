"""OpenVINO's own reader of ONNX: the bundle that is written for it, computed in float32."""

from pathlib import Path
from typing import Any

from ..kinds import DECODER, ENCODE, TOWERS

PACKAGES = ("openvino==2026.4.1", "numpy")
ARTIFACTS, KINDS = ("openvino",), (DECODER, *ENCODE)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """One row at a time."""
    import numpy as np
    import openvino

    # By itself it rounds what products read, and the cache.
    exact = {
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
    }
    compiled = openvino.Core().compile_model(artifact / "model.onnx", "CPU", exact)
    values = []
    for row in task["rows"]:
        given: dict[str, Any]
        if "pixels" in task:
            given = {"pixel_values": np.array(row, np.float32).reshape(1, *task["pixels"])}
        else:
            ids = np.array([row], np.int64)
            same = np.zeros_like(ids)
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": same}
        feeds = {}
        for one in compiled.inputs:
            name, shape = one.get_any_name(), one.partial_shape
            cached = name.startswith("past")
            feeds[name] = (
                given[name] if not cached else np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()))
            )
        found = compiled(feeds)
        if task["kind"] in TOWERS:
            values.append(found["sentence_embedding"][0].tolist())
            continue
        states = found["last_hidden_state" if task["kind"] in ("encoder", "images") else "logits"]
        values.append((states[0, -1] if task["decodes"] else states[0].mean(0)).tolist())
    return {"values": values}
