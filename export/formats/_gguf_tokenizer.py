"""A byte-level BPE as GGUF keeps it: tokens, their kinds, merges, special ids and the chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError
from ...runtime.text.tokenizer import Tokenizer
from ...storage import read_json

_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5


def add_tokenizer(writer: Any, directory: Path) -> None:
    """Add the tokenizer beside the checkpoint in ``directory``.

    Raises:
        InputError: it is no byte-level BPE.
    """
    content = read_json(directory / "tokenizer.json")
    model = content.get("model", {})
    if model.get("type") != "BPE" or "ByteLevel" not in str(content.get("pre_tokenizer")):
        raise InputError(
            f"the tokenizer of {directory.name} is no byte-level BPE, and others are not written as GGUF",
            fix="export to onnx",
        )
    added = {int(token["id"]): token for token in content.get("added_tokens", [])}
    names = {int(index): token for token, index in model["vocab"].items()}
    names |= {index: token["content"] for index, token in added.items()}
    size = int(read_json(directory / "config.json")["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types([_kind(index, names, added) for index in range(size)])
    merges = model.get("merges", [])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    tokenizer = Tokenizer.open(directory)
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    if tokenizer.eos_ids:
        writer.add_eos_token_id(next(iter(tokenizer.eos_ids)))
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _kind(index: int, names: dict[int, str], added: dict[int, Any]) -> int:
    if index in added:
        return _CONTROL if added[index].get("special") else _USER
    return _NORMAL if index in names else _UNUSED
