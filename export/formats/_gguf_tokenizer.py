"""The tokenizer of a model as GGUF keeps it: tokens, their kinds, special ids and the chat template; of a
byte-level BPE also its merges, of pieces as SentencePiece and unigram models have them scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...compress.model.checkpoint.gguf_words import inexact_name_of, name_of
from ...compress.model.checkpoint.reader import CheckpointReader
from ...compress.model.gguf.architecture import WAY_OUT
from ...errors import InputError
from ...files.storage import read_json
from ...runtime.text.tokenizer import Tokenizer
from ._gguf_pieces import Pieces, add_steps, pieces_of, refused, unigram_of, word_piece

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)


def add_tokenizer(writer: Any, reader: CheckpointReader, size: int, encodes: bool) -> None:
    """Add the tokenizer beside the checkpoint of ``reader``, whose embedding has ``size`` rows; of an encoder
    that ``encodes`` what stands around a text, whatever it is called.
    """
    content = read_json(reader.file("tokenizer.json"))
    tokenizer = Tokenizer.open(reader.path)  # what opens has all that is looked for below
    kind, by_bytes = content.get("model", {}).get("type"), "ByteLevel" in str(content.get("pre_tokenizer"))
    vocabulary = Vocabulary.of(content, size)
    if kind == "WordPiece":
        _add_word_pieces(writer, content, vocabulary, _around(tokenizer))
    elif kind == "Unigram":
        _add_unigram(writer, content, vocabulary)
    elif kind == "BPE" and by_bytes:
        _add_bytes(writer, content, vocabulary)
    elif kind == "BPE" and content["model"].get("byte_fallback"):
        _add_pieces(writer, pieces_of(content, tokenizer), vocabulary)
    else:
        raise InputError(
            f"the tokenizer of {reader.path.name} is no byte-level BPE, WordPiece or unigram one, nor one of "
            "pieces and single bytes, and others are not written as GGUF",
            fix=WAY_OUT,
        )
    _add_special(writer, tokenizer, encodes)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a ``tokenizer.json`` by id, those that were added, and the rows of the embedding."""

    names: dict[int, str]
    added: dict[int, Any]
    size: int

    @classmethod
    def of(cls, content: dict[str, Any], size: int) -> Vocabulary:
        """That of the file."""
        added = {int(token["id"]): token for token in content.get("added_tokens", [])}
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, dict):
            names = {int(index): token for token, index in vocabulary.items()}
        else:
            names = {index: piece[0] for index, piece in enumerate(vocabulary)}
        return cls(names | {index: token["content"] for index, token in added.items()}, added, size)

    def add(self, writer: Any, unknown: int | None = None, bytes_: frozenset[str] = frozenset()) -> None:
        """Add tokens and their kinds."""
        writer.add_token_list([self.names.get(index, f"[PAD{index}]") for index in range(self.size)])
        writer.add_token_types([self._kind(index, unknown, bytes_) for index in range(self.size)])
        if unknown is not None:
            writer.add_unk_token_id(unknown)

    def _kind(self, index: int, unknown: int | None, bytes_: frozenset[str]) -> int:
        if index == unknown:
            return _UNKNOWN
        if index in self.added:
            return _CONTROL if self.added[index].get("special") else _USER
        if self.names.get(index) in bytes_:
            return _BYTE
        return _NORMAL if index in self.names else _UNUSED


def _add_bytes(writer: Any, content: dict[str, Any], vocabulary: Vocabulary) -> None:
    merges = content["model"].get("merges", [])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cut_by(content))
    vocabulary.add(writer)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])


def _add_pieces(writer: Any, pieces: Pieces, vocabulary: Vocabulary) -> None:
    names = vocabulary.names
    unknown = next((index for index, name in names.items() if name == pieces.unknown), None)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    vocabulary.add(writer, unknown, pieces.bytes)
    writer.add_token_scores([pieces.score(names.get(index)) for index in range(vocabulary.size)])
    writer.add_add_space_prefix(pieces.prefixed)


def _add_word_pieces(
    writer: Any, content: dict[str, Any], vocabulary: Vocabulary, around: tuple[int | None, list[int]]
) -> None:
    if around[0] is None or not around[1]:
        raise refused("puts no token before a text, or behind it", "llama.cpp puts both there in any case")
    written = {
        index: name if index in vocabulary.added else word_piece(name)
        for index, name in vocabulary.names.items()
    }
    writer.add_tokenizer_model("bert")
    add_steps(writer, content)
    writer.add_tokenizer_pre("default")
    replace(vocabulary, names=written).add(writer)
    writer.add_unk_token_id(content["model"]["vocab"][content["model"]["unk_token"]])


def _add_unigram(writer: Any, content: dict[str, Any], vocabulary: Vocabulary) -> None:
    found = unigram_of(content)
    scores = [score for _, score in found.pieces] + [0.0] * max(0, vocabulary.size - len(found.pieces))
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    vocabulary.add(writer, found.unknown)
    writer.add_token_scores(scores[: vocabulary.size])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(found.characters)


def _add_special(writer: Any, tokenizer: Tokenizer, encodes: bool) -> None:
    """The special ids, whether a text gets the first and the last of them, and the chat template."""
    ids = tokenizer.encode("a")
    begin, ends = tokenizer.bos_id, tokenizer.eos_ids
    if encodes:
        begin, ends = _around(tokenizer)
        for end in ends:
            writer.add_sep_token_id(end)
            writer.add_add_sep_token(True)
    if begin is not None:
        writer.add_bos_token_id(begin)
    writer.add_add_bos_token(begin is not None and ids[:1] == [begin])
    if ends:
        writer.add_eos_token_id(ends[0])
        writer.add_add_eos_token(ids[-1:] == ends[:1])
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _around(tokenizer: Tokenizer) -> tuple[int | None, list[int]]:
    """What stands before and behind a text."""
    text, whole = tokenizer.encode("a", special=False), tokenizer.encode("a")
    for before in (0, 1):
        for behind in (0, 1):
            first, last = whole[:before], whole[len(whole) - behind :]
            if [*first, *text, *last] == whole:
                return next(iter(first), None), last
    raise refused("puts more around a text than its first and last token", "llama.cpp knows these two")


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
