"""What the clients open: for each family a pico model, compressed, its bundle of standard operators, that for
OpenVINO, the layout of hubs, GPTQ's and AWQ's checkpoints and GGUF where these are written; and our own
answers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....compress.model.gguf.families import ARCHITECTURES
from ....compress.numbers.scheme import GGUF
from ....export.formats.awq import Awq
from ....export.formats.gptq import Gptq
from ....files.storage import read_json, write_json
from ..same_bytes.pico_embedders import save_embedder
from ..same_bytes.pico_inputs import sentences
from ..same_bytes.pico_models import save_pico
from ..same_bytes.pico_tokenizers import save_pieces
from .families import AS_THERE, EMBEDS, FAMILIES, PIECES, SMALL_HEAD, TOKENIZERS, WIDE_HEADS
from .kinds import DECODER, ENCODE, ENCODER, MIXTURE, READ_AND_WRITE, STATES, TAGGER

SCHEME, FLOAT, NEW_TOKENS, LENGTHS = "W4A16-g32", "F32", 8, (40, 5, 17)
OURS = ("wanted", "embedded", "scored")
_PACKED = ("gptq", "awq")
# The forms that are written of a kind; of decoders, GGUF of those that it has an architecture for.
_FORMS = {
    DECODER: ("checkpoint", "onnx", "openvino", "onnx_hub", *_PACKED, "gguf"),
    MIXTURE: ("checkpoint", "onnx", "onnx_hub", "gguf"),
    STATES: ("checkpoint", "onnx"),
    **dict.fromkeys(ENCODE, ("checkpoint", "onnx", "openvino", "onnx_hub")),
    **dict.fromkeys(READ_AND_WRITE, ("checkpoint", "onnx", "onnx_hub")),
}
# The families that are refused in a form.
_WITHOUT = {
    "gptq": ("gpt2", "falcon", *Gptq.families_not_opened),
    "awq": ("gpt2", "falcon", *Awq.families_not_opened),
}
# Whose windows, heads of either kind, scores or routers are not what llama.cpp has, or whose scores are so
# large that its keys in half precision give other answers; rows of the same families are as they have to be.
_NOT_AS_THERE = (
    *("cohere2", "exaone4", "olmo3", "phi", "gemma2", "gemma3_text"),
    *("qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss"),
)
_TYPES = (*GGUF, "q8_0", "q4_0", FLOAT.lower())
# sentence-transformers imports what they name.
_STAGES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
_POOLING = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
_RECIPE = f"passes:\n- pass: rtn\n  scheme: {SCHEME}\nembedding: {SCHEME}\n"


@dataclass(frozen=True)
class Artifacts:
    """Those of one family below ``root``."""

    root: Path
    family: str

    @property
    def kind(self) -> str:
        """One of :mod:`.kinds`."""
        return FAMILIES[self.family][0]

    @property
    def model_type(self) -> str:
        """What the config calls the family."""
        return self.family.partition(" ")[0]

    @property
    def scheme(self) -> str:
        """What its weights are compressed to."""
        if self._gguf_type:
            return self.family.partition(" ")[2]
        return "Q4_0" if "gguf" in self.forms else SCHEME

    @property
    def forms(self) -> tuple[str, ...]:
        """The artifacts that it has."""
        if self._gguf_type or self.family.endswith((AS_THERE, PIECES)):
            return ("gguf",)
        if self.family.endswith(SMALL_HEAD):
            return ("onnx", "onnx_hub")
        if self.family.endswith(WIDE_HEADS):
            return ("checkpoint", *_PACKED)
        without = {form for form, families in _WITHOUT.items() if self.model_type in families}
        there = self.model_type in ARCHITECTURES and self.family not in _NOT_AS_THERE
        without |= set() if there else {"gguf"}
        return tuple(form for form in _FORMS[self.kind] if form not in without)

    @property
    def _gguf_type(self) -> bool:
        return self.family.partition(" ")[2].lower() in _TYPES

    def path(self, artifact: str) -> Path:
        """``checkpoint`` or an export format."""
        return self.root / self.family / artifact

    def task(self) -> dict[str, Any]:
        """What clients are asked, and our answers, those named in ``OURS``, by artifact."""
        found: dict[str, Any] = read_json(self.root / self.family / "task.json")
        return found

    def make(self) -> None:
        """Write all of them, unless they are there."""
        from ....export.api import export_bundle

        if (self.root / self.family / "task.json").is_file():
            return
        checkpoint = self._compressed()
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
            export_bundle(checkpoint, output=self.path(form), validate=False, overwrite=True, **chosen)
        write_json(self.root / self.family / "task.json", self._task(checkpoint))

    def _compressed(self) -> Path:
        from ....compress.api import compress_model

        model, checkpoint, tags = self.path("model"), self.path("checkpoint"), self.kind == TAGGER
        settings, embeds = FAMILIES[self.family][1], self.family.endswith(EMBEDS)
        pools = self.kind == ENCODER and not embeds
        if embeds:
            save_embedder(model, self.model_type, settings)
        else:
            read_by = TOKENIZERS.get(self.model_type) if self._gguf_type else None
            form: dict[str, Any] = {"pooling": pools, "labels": tags, "by_token": tags, "tokenizer": read_by}
            save_pico(model, self.model_type, settings, **form)
        if self.family.endswith(PIECES):
            size = read_json(model / "config.json")["vocab_size"]
            save_pieces(model, sentences(50, seed=0), size, prefixed=self.model_type != "gemma")
        if pools:
            write_json(model / "modules.json", _STAGES)
            write_json(model / "1_Pooling" / "config.json", _POOLING)
        if self.scheme == FLOAT:
            return model
        how: dict[str, Any] = {"scheme": self.scheme}
        if self.family.endswith(SMALL_HEAD):
            recipe = self.root / self.family / "recipe.yaml"
            recipe.write_text(_RECIPE, encoding="utf-8")
            how = {"recipe": str(recipe)}
        return compress_model(str(model), output=checkpoint, overwrite=True, **how)

    def _task(self, checkpoint: Path) -> dict[str, Any]:
        from ....compress.model.torch_model import load_model
        from .our_answers import answers, question, text_answers

        task = question(self.kind, checkpoint, LENGTHS, NEW_TOKENS)
        exported = load_model(checkpoint, embedding=True)  # embedding and head as exports store them
        plain = load_model(checkpoint)
        found = {
            stored: {"wanted": answers(model, task, checkpoint)}
            | text_answers(self.kind, model, checkpoint, LENGTHS)
            for stored, model in ((True, plain), (False, exported))
        }
        task |= {key: value for key, value in found[True].items() if key not in OURS}
        for key in found[True].keys() & set(OURS):
            task[key] = {form: found[form in ("checkpoint", *_PACKED)][key] for form in self.forms}
        return task
