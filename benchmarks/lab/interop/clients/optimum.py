"""optimum's models of ONNX Runtime: the bundle of standard operators as a directory, and the layout of hubs;
a batch is padded on the left for decoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kinds import DECODER, ENCODE, MIXTURE, TAGGER, TEXT_TO_TEXT, TOWERS

PACKAGES = ("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.32.0", "torch")
ARTIFACTS, KINDS = ("onnx", "onnx_hub"), (DECODER, MIXTURE, *ENCODE, TEXT_TO_TEXT)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """By the class of its kind."""
    import torch
    from optimum import onnxruntime as optimum

    if "pixels" in task or task["kind"] in TOWERS:
        return _encoded(artifact, task)
    rows, longest = task["rows"], max(map(len, task["rows"]))
    ids = torch.full((len(rows), longest), task["pad"])
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if task["decodes"] else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    if not task["decodes"]:
        tags = task["kind"] == TAGGER
        kind = optimum.ORTModelForTokenClassification if tags else optimum.ORTModelForFeatureExtraction
        model = kind.from_pretrained(artifact, **_file(artifact))
        states = model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))[0]
        weights = mask[..., None].float()
        return {"values": ((states * weights).sum(1) / weights.sum(1)).tolist()}
    if task["kind"] == TEXT_TO_TEXT:
        optimum.ORTModelForSeq2SeqLM.from_pretrained(artifact)
        raise RuntimeError("an encoder–decoder is not expected to open")
    model = optimum.ORTModelForCausalLM.from_pretrained(artifact, **_file(artifact))
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


def _file(artifact: Path) -> dict[str, str]:
    """Where the graph lies."""
    if (artifact / "onnx").is_dir():
        (graph,) = (artifact / "onnx").glob("*.onnx")
        return {"subfolder": "onnx", "file_name": graph.name}
    return {"file_name": "model.onnx"}


def _encoded(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Its class for graphs of any inputs and outputs."""
    import torch
    from optimum import onnxruntime as optimum

    model = optimum.ORTModelForCustomTasks.from_pretrained(artifact, **_file(artifact))
    values = []
    for row in task["rows"]:
        if "pixels" in task:
            found = model(pixel_values=torch.tensor(row).reshape(1, *task["pixels"]))
        else:
            ids = torch.tensor([row])
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            found = model(**{name: value for name, value in given.items() if name in model.input_names})
        tower = task["kind"] in TOWERS
        vectors = found["sentence_embedding"] if tower else found["last_hidden_state"].mean(1)
        values.append(vectors[0].tolist())
    return {"values": values}
