"""optimum's models of ONNX Runtime: the bundle of standard operators as a directory, and the layout of hubs;
a batch is padded on the left for decoders.
"""

from pathlib import Path
from typing import Any

from ..kinds import DECODER, ENCODE, MIXTURE, READ_AND_WRITE, SPEECH, TAGGER, TOWERS

PACKAGES = ("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.32.0", "torch")
ARTIFACTS, KINDS = ("onnx", "onnx_hub"), (DECODER, MIXTURE, *ENCODE, *READ_AND_WRITE)


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """By the class of its kind."""
    import torch
    from optimum import onnxruntime as optimum

    if "pixels" in task or task["kind"] in TOWERS:
        return _encoded(artifact, task)
    if task["kind"] == SPEECH:
        return _heard(artifact, task)
    rows, longest = task["rows"], max(map(len, task["rows"]))
    ids = torch.full((len(rows), longest), task["pad"])
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        left = task["decodes"] and "start" not in task
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    if not task["decodes"]:
        tags = task["kind"] == TAGGER
        kind = optimum.ORTModelForTokenClassification if tags else optimum.ORTModelForFeatureExtraction
        model = kind.from_pretrained(artifact, **_file(artifact))
        states = model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))[0]
        weights = mask[..., None].float()
        return {"values": ((states * weights).sum(1) / weights.sum(1)).tolist()}
    if "start" in task:
        model, longest = optimum.ORTModelForSeq2SeqLM.from_pretrained(artifact, **_folder(artifact)), 1
    else:
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


def _heard(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Token by token with the cache that it gives: its ``generate`` asks for languages."""
    import numpy as np
    import torch
    from optimum import onnxruntime as optimum
    from transformers import AutoFeatureExtractor

    model = optimum.ORTModelForSpeechSeq2Seq.from_pretrained(artifact, **_folder(artifact))
    extractor = AutoFeatureExtractor.from_pretrained(artifact)
    sounds = [np.array(row, np.float32) for row in task["rows"]]
    spectra = extractor(sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
    states, cache = model.encoder(input_features=spectra, attention_mask=None), None
    values: list[list[float]] = []
    tokens = torch.full((len(sounds), 1), task["start"])
    while tokens.shape[1] <= task["new_tokens"]:
        last = tokens[:, -1:]
        found = model(encoder_outputs=states, decoder_input_ids=last, past_key_values=cache, use_cache=True)
        cache, logits = found.past_key_values, found.logits[:, -1]
        values = values or logits.tolist()
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    return {"values": values, "tokens": tokens[:, 1:].tolist()}


def _folder(artifact: Path) -> dict[str, str]:
    """Where the two graphs of an encoder–decoder lie, which it finds by their names."""
    return {"subfolder": "onnx"} if (artifact / "onnx").is_dir() else {}


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
