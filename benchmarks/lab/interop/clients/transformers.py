"""transformers: the checkpoint itself with compressed-tensors, GPTQ's and AWQ's forms of it with gptqmodel; a
batch is padded on the left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGES = (
    *("transformers==5.24.0", "compressed-tensors==0.20.1", "accelerate", "torch"),
    *("gptqmodel==7.6.0", "optimum==2.3.0"),
)
ARTIFACTS, KINDS = ("checkpoint", "gptq", "awq"), ("decoder", "encoder", "tagger")


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Opened by the Auto class of its kind."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification

    rows, longest = task["rows"], max(map(len, task["rows"]))
    decodes = task["kind"] == "decoder"
    ids = torch.full((len(rows), longest), task["pad"])
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if decodes else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    with torch.no_grad():
        if not decodes:
            kind = AutoModelForTokenClassification if task["kind"] == "tagger" else AutoModel
            states = kind.from_pretrained(artifact).eval()(input_ids=ids, attention_mask=mask)[0]
            weights = mask[..., None].float()
            return {"values": ((states * weights).sum(1) / weights.sum(1)).tolist()}
        model = AutoModelForCausalLM.from_pretrained(artifact).eval()
        settings = {"max_new_tokens": task["new_tokens"], "do_sample": False, "eos_token_id": None}
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            pad_token_id=task["pad"],
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
    return {"values": found.logits[0].tolist(), "tokens": found.sequences[:, longest:].tolist()}
