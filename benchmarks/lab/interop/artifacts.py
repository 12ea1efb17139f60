"""What the clients open: for each family a pico model, compressed, its bundle of standard operators, that for
OpenVINO, the layout of hubs, GPTQ's and AWQ's checkpoints and GGUF where these are written; and our own
answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....compress.numbers.scheme import GGUF
from ....export.formats._gguf_architecture import ARCHITECTURES
from ....export.formats.awq import Awq
from ....export.formats.gptq import Gptq
from ....storage import read_json, write_json
from ..same_bytes.pico_models import (
    DEBERTA,
    DISTILBERT,
    ENCODER,
    EUROBERT,
    FALCON,
    GEMMA2,
    MODERNBERT,
    NEOX,
    WORDS,
    save_pico,
)

_GEMMA3 = {
    "head_dim": 32,
    "query_pre_attn_scalar": 24,
    "sliding_window": 24,
    "sliding_window_pattern": 2,
}
_TWO_HEADS, _OWN_HEAD = {"head_dim": 32, "num_attention_heads": 2}, {"tie_word_embeddings": False}
_GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}
_WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}  # rows of whole super-blocks
# Family, or family and GGUF's type → kind and what its config has in addition to the sizes of all.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("decoder", {}),
    "mistral": ("decoder", {"sliding_window": 64}),
    "qwen2": ("decoder", {}),
    "qwen3": ("decoder", {}),
    "gemma": ("decoder", {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": ("decoder", GEMMA2),
    "gemma3_text": ("decoder", _GEMMA3),
    "phi": ("decoder", {"head_dim": 32, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}),
    "phi3": ("decoder", {}),
    "smollm3": ("decoder", {"no_rope_layer_interval": 4, "num_hidden_layers": 4}),
    "granite": ("decoder", _GRANITE),
    "ernie4_5": ("decoder", {}),
    "falcon": ("decoder", FALCON),
    "bloom": ("decoder", {"seq_length": 512}),
    "mpt": ("decoder", {"max_seq_len": 512}),
    "helium": ("decoder", {"num_key_value_heads": 4}),
    "cohere": ("decoder", {"logit_scale": 0.5}),
    "cohere2": ("decoder", {"logit_scale": 0.5, "sliding_window": 64, "sliding_window_pattern": 2}),
    "nemotron": ("decoder", _TWO_HEADS | _OWN_HEAD),
    "glm4": ("decoder", _TWO_HEADS),
    "olmo2": ("decoder", _OWN_HEAD),
    "olmo3": ("decoder", {"sliding_window": 64}),
    "exaone4": ("decoder", {"sliding_window": 64, "sliding_window_pattern": 2}),
    "gptj": ("decoder", {"n_inner": 128, "rotary_dim": 16, "tie_word_embeddings": False}),
    "stablelm": ("decoder", _TWO_HEADS | _OWN_HEAD | {"partial_rotary_factor": 0.5}),
    "starcoder2": ("decoder", {"head_dim": None}),
    "gpt2": ("decoder", {"n_inner": 128}),
    "gpt_neox": ("decoder", NEOX),
    "opt": ("decoder", {"ffn_dim": 128}),
    "bert": ("encoder", ENCODER),
    "roberta": ("encoder", ENCODER),
    "xlm-roberta": ("encoder", ENCODER),
    "camembert": ("encoder", ENCODER),
    "electra": ("encoder", ENCODER | {"embedding_size": 32}),
    "mpnet": ("encoder", ENCODER),
    "modernbert": ("encoder", MODERNBERT),
    "eurobert": ("encoder", EUROBERT),
    "nomic_bert": ("encoder", ENCODER),
    "gte": ("encoder", ENCODER),
    "deberta-v2": ("encoder", DEBERTA),
    "bert tagger": ("tagger", ENCODER),
    "xlm-roberta tagger": ("tagger", ENCODER),
    "distilbert tagger": ("tagger", DISTILBERT),
    **{f"llama {scheme.upper()}": ("decoder", _WIDE) for scheme in GGUF},
}
# The families that are refused in a form.
_PACKED = {
    "gptq": ("gpt2", "falcon", *Gptq.families_not_opened),
    "awq": ("gpt2", "falcon", *Awq.families_not_opened),
}
SCHEME, NEW_TOKENS, LENGTHS = "W4A16-g32", 8, (40, 5, 17)


@dataclass(frozen=True)
class Artifacts:
    """Those of one family below ``root``."""

    root: Path
    family: str

    @property
    def kind(self) -> str:
        """``decoder``, ``encoder``, or ``tagger``: a classifier of tokens."""
        return FAMILIES[self.family][0]

    @property
    def scheme(self) -> str:
        """What its weights are compressed to."""
        own = self.family.partition(" ")[2]
        if own.lower() in GGUF:
            return own
        return "Q4_0" if "gguf" in self.forms else SCHEME

    @property
    def forms(self) -> tuple[str, ...]:
        """The artifacts that it has."""
        if self.family.partition(" ")[2].lower() in GGUF:
            return ("gguf",)
        packed = [form for form, without in _PACKED.items() if self.family not in without]
        more = [*packed * (self.kind == "decoder"), *["gguf"] * (self.family in ARCHITECTURES)]
        return ("checkpoint", "onnx", "openvino", "onnx_hub", *more)

    def path(self, artifact: str) -> Path:
        """``checkpoint`` or an export format."""
        return self.root / self.family / artifact

    def task(self) -> dict[str, Any]:
        """What clients are asked, and what we answer: ``wanted`` by artifact, ``embedded`` of texts."""
        found: dict[str, Any] = read_json(self.root / self.family / "task.json")
        return found

    def make(self) -> None:
        """Write all of them, unless they are there."""
        from ....compress.api import compress_model
        from ....export.api import export_bundle

        if (self.root / self.family / "task.json").is_file():
            return
        model, checkpoint = self.path("model"), self.path("checkpoint")
        family, pools, tags = self.family.partition(" ")[0], self.kind == "encoder", self.kind == "tagger"
        save_pico(model, family, FAMILIES[self.family][1], pooling=pools, labels=tags, by_token=tags)
        compress_model(str(model), scheme=self.scheme, output=checkpoint, overwrite=True)
        floats = {"activations": "float32"}
        choices: dict[str, dict[str, Any]] = {
            "onnx": {**floats, "operators": "standard"},
            "openvino": {"format": "onnx", "provider": "openvino"},
            "onnx_hub": floats,
        }
        for form in self.forms:
            if form == "checkpoint":
                continue
            chosen = {"format": form, **choices.get(form, {})}
            place = self.path(form)
            export_bundle(checkpoint, output=place, validate=False, overwrite=True, **chosen)
        write_json(self.root / self.family / "task.json", self._task(checkpoint))

    def _task(self, checkpoint: Path) -> dict[str, Any]:
        from ....compress.model.pooling import pooling_of
        from ....compress.model.torch_model import load_model
        from ....runtime.text.tokenizer import Tokenizer

        generator = random.Random(5)
        texts = [" ".join(generator.choices(WORDS, k=length)) for length in LENGTHS]
        rows = [[generator.randrange(5, 100) for _ in range(length)] for length in LENGTHS]
        task: dict[str, Any] = {"kind": self.kind, "pad": 0, "new_tokens": NEW_TOKENS, "rows": rows}
        exported = load_model(checkpoint, embedding=True)  # embedding and head as exports store them
        plain = load_model(checkpoint)
        models = {form: plain if form in ("checkpoint", *_PACKED) else exported for form in self.forms}
        answers = _continued if self.kind == "decoder" else _averaged
        task["wanted"] = {artifact: answers(model, rows) for artifact, model in models.items()}
        if self.kind == "encoder":
            tokenizer = Tokenizer.open(checkpoint)
            ids = [tokenizer.encode(text) for text in texts]
            task |= {"texts": texts, "embedded": _averaged(plain, ids, pooling_of(checkpoint))}
        return task


def _averaged(model: Any, rows: list[list[int]], pooling: Any = None) -> dict[str, Any]:
    """Means of the states (of a tagger the logits) of each row, or the vectors of a ``pooling``, by torch."""
    import torch

    values = []
    for row in rows:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row]))[0]
        mask = torch.ones(1, len(row))
        values.append((states.mean(1) if pooling is None else pooling.apply(states, mask))[0].tolist())
    return {"values": values}


def _continued(model: Any, rows: list[list[int]]) -> dict[str, Any]:
    """Logits after each row and the greedy tokens that follow, by torch, each row alone."""
    import torch

    values, tokens = [], []
    for row in rows:
        ids = list(row)
        for step in range(NEW_TOKENS):
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            if step == 0:
                values.append(logits.tolist())
            ids.append(int(logits.argmax()))
        tokens.append(ids[len(row) :])
    return {"values": values, "tokens": tokens}
