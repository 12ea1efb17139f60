"""A byte-level BPE as GGUF keeps it: tokens, their kinds, merges, special ids and the chat template."""

from __future__ import annotations

from typing import Any

from ...compress.model.checkpoint.gguf_words import name_of
from ...compress.model.checkpoint.reader import CheckpointReader
from ...errors import InputError
from ...runtime.text.tokenizer import Tokenizer
from ...storage import read_json

_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5
_WAY_OUT = "export to onnx"


def add_tokenizer(writer: Any, reader: CheckpointReader, size: int) -> None:
    """Add the tokenizer beside the checkpoint of ``reader``, whose embedding has ``size`` rows.

    Raises:
        InputError: it is no byte-level BPE, or cuts text as llama.cpp cannot.
        BundleError: it is no tokenizer. RefusedByPolicy: its file is a link that leaves the checkpoint.
    """
    content = read_json(reader.file("tokenizer.json"))
    tokenizer = Tokenizer.open(reader.path)  # what opens has all that is looked for below
    model = content.get("model", {})
    if model.get("type") != "BPE" or "ByteLevel" not in str(content.get("pre_tokenizer")):
        raise InputError(
            f"the tokenizer of {reader.path.name} is no byte-level BPE, and others are not written as GGUF",
            fix=_WAY_OUT,
        )
    added = {int(token["id"]): token for token in content.get("added_tokens", [])}
    names = {int(index): token for token, index in model["vocab"].items()}
    names |= {index: token["content"] for index, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cut_by(content))
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types([_kind(index, names, added) for index in range(size)])
    merges = model.get("merges", [])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
        writer.add_add_bos_token(list(tokenizer.encode("a")[:1]) == [tokenizer.bos_id])
    if tokenizer.eos_ids:
        writer.add_eos_token_id(next(iter(tokenizer.eos_ids)))
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _cut_by(content: dict[str, Any]) -> str:
    name = name_of(content.get("pre_tokenizer"), content["model"].get("ignore_merges") is True)
    if name is None:
        raise InputError(
            "the tokenizer cuts text into words in a way that llama.cpp has no name for",
            why="another way would give other tokens for the same text",
            fix=_WAY_OUT,
        )
    return name


def _kind(index: int, names: dict[int, str], added: dict[int, Any]) -> int:
    if index in added:
        return _CONTROL if added[index].get("special") else _USER
    return _NORMAL if index in names else _UNUSED
