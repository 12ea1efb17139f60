"""Pico decoders that embed sentences, with the files of sentence-transformers: the tokenizer ends each text
with a token of its own and pads on the left, tensors are named as those of a model without a head.
"""

import json
from pathlib import Path
from typing import Any

from .pico_models import save_pico

END = "<|endoftext|>"
_PREFIX = "sentence_transformers.models."
PROMPTS = {"query": "Instruct: find what answers it\nQuery:", "document": ""}


def save_embedder(
    folder: Path,
    family: str,
    changes: dict[str, Any],
    *,
    mode: str = "lasttoken",
    normalize: bool = True,
    max_length: int = 160,
    bare: bool = True,
) -> Path:
    """Save a decoder of ``family``; ``changes`` go to its config. Its states are pooled by ``mode``, and it
    keeps its head where it is not ``bare``.
    """
    from transformers import AutoModel

    save_pico(folder, family, changes)
    if bare:
        inner = AutoModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        inner.save_pretrained(folder)
    _end_texts(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds[1:], 1))]
    stages = [
        {"idx": index, "name": str(index), "path": path, "type": _PREFIX + kind}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    pooling = {"word_embedding_dimension": 64, f"pooling_mode_{mode}": True, "include_prompt": True}
    files: dict[str, Any] = {
        "modules.json": stages,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": PROMPTS, "default_prompt_name": None},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _end_texts(folder: Path) -> None:
    from tokenizers import Tokenizer, processors
    from transformers import AutoTokenizer

    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    tokenizer.save(str(file))
    opened = AutoTokenizer.from_pretrained(folder)
    opened.padding_side, opened.pad_token = "left", END
    opened.save_pretrained(folder)
