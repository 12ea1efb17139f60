"""transformers: the checkpoint itself with compressed-tensors, GPTQ's and AWQ's forms of it with gptqmodel; a
batch is padded on the left, or on the right where it is read alone.
"""

import json
from pathlib import Path
from typing import Any

from ..kinds import ALL, READ_AND_WRITE, SPEECH, TAGGER, TOWERS

PACKAGES = (
    *("transformers==5.24.0", "compressed-tensors==0.20.1", "accelerate", "torch"),
    *("gptqmodel==7.6.0", "optimum==2.3.0"),
)
ARTIFACTS, KINDS = ("checkpoint", "gptq", "awq"), ALL


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Opened by the Auto class of its kind, a tower by the class that its config names."""
    import torch

    with torch.no_grad():
        if task["kind"] == SPEECH:
            return _heard(artifact, task)
        if "pixels" in task or task["kind"] in TOWERS:
            return _encoded(artifact, task)
        return _read(artifact, task)


def _read(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    rows, longest = task["rows"], max(map(len, task["rows"]))
    writes = task["kind"] in READ_AND_WRITE
    left = task["decodes"] and not writes
    ids = torch.full((len(rows), longest), task["pad"])
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    if not task["decodes"]:
        tags = task["kind"] == TAGGER
        kind = transformers.AutoModelForTokenClassification if tags else transformers.AutoModel
        states = kind.from_pretrained(artifact).eval()(input_ids=ids, attention_mask=mask)[0]
        weights = mask[..., None].float()
        return {"values": ((states * weights).sum(1) / weights.sum(1)).tolist()}
    kind = transformers.AutoModelForSeq2SeqLM if writes else transformers.AutoModelForCausalLM
    found = (
        kind.from_pretrained(artifact)
        .eval()
        .generate(
            input_ids=ids,
            attention_mask=mask,
            pad_token_id=task["pad"],
            output_logits=True,
            return_dict_in_generate=True,
            max_new_tokens=task["new_tokens"],
            do_sample=False,
            eos_token_id=None,
        )
    )
    begin = 1 if writes else longest
    return {"values": found.logits[0].tolist(), "tokens": found.sequences[:, begin:].tolist()}


def _encoded(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    (name,) = json.loads((artifact / "config.json").read_text(encoding="utf-8"))["architectures"]
    model = getattr(transformers, name).from_pretrained(artifact).eval()
    values = []
    for row in task["rows"]:
        if "pixels" in task:
            found = model(pixel_values=torch.tensor(row).reshape(1, *task["pixels"]))
        else:
            found = model(input_ids=torch.tensor([row]))
        names = [
            one for one in ("image_embeds", "text_embeds", "pooler_output") if found.get(one) is not None
        ]
        vectors = found[names[0]] if task["kind"] in TOWERS else found.last_hidden_state.mean(1)
        values.append(vectors[0].tolist())
    return {"values": values}


def _heard(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Step by step: ``generate`` would ask for the tokens of languages, which a pico model does not have."""
    import numpy as np
    import torch
    import transformers

    extractor = transformers.WhisperFeatureExtractor.from_pretrained(artifact)
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(artifact).eval()
    sounds = [np.array(row, np.float32) for row in task["rows"]]
    features = extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
    read = model.get_encoder()(features)  # first and by itself, as ``generate`` does
    ids, values, cache = torch.full((len(sounds), 1), task["start"]), None, None
    for _ in range(task["new_tokens"]):
        found = model(
            encoder_outputs=read, decoder_input_ids=ids[:, -1:], past_key_values=cache, use_cache=True
        )
        logits, cache = found.logits[:, -1], found.past_key_values
        values = logits.tolist() if values is None else values
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return {"values": values, "tokens": ids[:, 1:].tolist()}
