"""The tokenizer of a model as GGUF keeps it: tokens, their kinds, special ids and the chat template; of a
byte-level BPE also its merges, of pieces as SentencePiece has them scores.
"""

from __future__ import annotations

from typing import Any

from ...compress.model.checkpoint.gguf_words import inexact_name_of, name_of
from ...compress.model.checkpoint.reader import CheckpointReader
from ...compress.model.gguf.architecture import WAY_OUT
from ...errors import InputError
from ...runtime.text.tokenizer import Tokenizer
from ...storage import read_json
from ._gguf_pieces import Pieces, pieces_of

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)


def add_tokenizer(writer: Any, reader: CheckpointReader, size: int) -> None:
    """Add the tokenizer beside the checkpoint of ``reader``, whose embedding has ``size`` rows.

    Raises:
        InputError: it is neither a byte-level BPE nor of pieces, or cuts text as llama.cpp cannot.
        BundleError: it is no tokenizer. RefusedByPolicy: its file is a link that leaves the checkpoint.
    """
    content = read_json(reader.file("tokenizer.json"))
    tokenizer = Tokenizer.open(reader.path)  # what opens has all that is looked for below
    model = content.get("model", {})
    by_bytes = "ByteLevel" in str(content.get("pre_tokenizer"))
    if model.get("type") != "BPE" or not (by_bytes or model.get("byte_fallback")):
        raise InputError(
            f"the tokenizer of {reader.path.name} is no byte-level BPE, nor one of pieces and single bytes, "
            "and others are not written as GGUF",
            fix=WAY_OUT,
        )
    added = {int(token["id"]): token for token in content.get("added_tokens", [])}
    names = {int(index): token for token, index in model["vocab"].items()}
    names |= {index: token["content"] for index, token in added.items()}
    pieces = None if by_bytes else pieces_of(content, tokenizer)
    writer.add_tokenizer_model("gpt2" if pieces is None else "llama")
    writer.add_tokenizer_pre(_cut_by(content) if pieces is None else "default")
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types([_kind(index, names, added, pieces) for index in range(size)])
    if pieces is None:
        merges = model.get("merges", [])
        writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    else:
        writer.add_token_scores([pieces.score(names.get(index)) for index in range(size)])
        writer.add_add_space_prefix(pieces.prefixed)
        if pieces.unknown is not None:
            writer.add_unk_token_id(model["vocab"][pieces.unknown])
    _add_special(writer, tokenizer)


def _add_special(writer: Any, tokenizer: Tokenizer) -> None:
    """The special ids, whether a text gets the first and the last of them, and the chat template."""
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    ids = tokenizer.encode("a")
    writer.add_add_bos_token(tokenizer.bos_id is not None and ids[:1] == [tokenizer.bos_id])
    if tokenizer.eos_ids:
        writer.add_eos_token_id(tokenizer.eos_ids[0])
        writer.add_add_eos_token(ids[-1:] == tokenizer.eos_ids[:1])
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _cut_by(content: dict[str, Any]) -> str:
    steps = content.get("pre_tokenizer")
    name = name_of(steps, content["model"].get("ignore_merges") is True)
    if name is None and (near := inexact_name_of(steps)) is not None:
        raise InputError(
            f"the tokenizer cuts text into words in a way that llama.cpp calls {near}, and does not follow",
            why="it tells capitals in ASCII alone, and would give other tokens for HÉLLO",
            fix=WAY_OUT,
        )
    if name is None:
        raise InputError(
            "the tokenizer cuts text into words in a way that llama.cpp has no name for",
            why="another way would give other tokens for the same text",
            fix=WAY_OUT,
        )
    return name


def _kind(index: int, names: dict[int, str], added: dict[int, Any], pieces: Pieces | None) -> int:
    if pieces is not None and names.get(index) == pieces.unknown:
        return _UNKNOWN
    if index in added:
        return _CONTROL if added[index].get("special") else _USER
    if pieces is not None and names.get(index) in pieces.bytes:
        return _BYTE
    return _NORMAL if index in names else _UNUSED
