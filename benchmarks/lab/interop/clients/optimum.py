"""optimum's ``ORTModelForCausalLM`` and its models of encoders: the bundle of standard operators; a
batch is padded on the left for decoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGES = ("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.32.0", "torch")
ARTIFACTS, KINDS = ("onnx",), ("decoder", "encoder", "tagger")


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Opened as a directory with ``model.onnx`` and ``config.json``."""
    import torch
    from optimum.onnxruntime import (
        ORTModelForCausalLM,
        ORTModelForFeatureExtraction,
        ORTModelForTokenClassification,
    )

    rows, longest = task["rows"], max(map(len, task["rows"]))
    decodes = task["kind"] == "decoder"
    ids = torch.full((len(rows), longest), task["pad"])
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if decodes else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    if not decodes:
        tags = task["kind"] == "tagger"
        kind = ORTModelForTokenClassification if tags else ORTModelForFeatureExtraction
        model = kind.from_pretrained(artifact, file_name="model.onnx")
        states = model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))[0]
        weights = mask[..., None].float()
        return {"values": ((states * weights).sum(1) / weights.sum(1)).tolist()}
    model = ORTModelForCausalLM.from_pretrained(artifact, file_name="model.onnx")
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        pad_token_id=task["pad"],
        max_new_tokens=task["new_tokens"],
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return {"values": found.logits[0].tolist(), "tokens": found.sequences[:, longest:].tolist()}
