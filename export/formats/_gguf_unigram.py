"""A unigram tokenizer (XLM-R, T5) in llama.cpp's form: each piece has a score, and of all ways to cut a text
that with the largest sum is taken. Characters are replaced by the table that SentencePiece compiled.

Kudo, Subword Regularization, 2018, arXiv 1804.10959.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from ._gguf_pieces import SPACE
from ._gguf_word_pieces import refused

_SPACES: Any = {"type": "Replace", "pattern": {"Regex": " {2,}"}}
_SPLIT = {"type": "WhitespaceSplit"}
_STRIP = {"type": "Strip", "strip_left": False, "strip_right": True}


@dataclass(frozen=True)
class Unigram:
    """``pieces`` with their scores, the id of the ``unknown`` one, and the table of ``characters``."""

    pieces: list[tuple[str, float]]
    unknown: int
    characters: bytes


def unigram_of(content: dict[str, Any]) -> Unigram:
    """The pieces of a ``tokenizer.json``."""
    model, normalizer = content["model"], content.get("normalizer") or {}
    if model.get("byte_fallback") or model.get("unk_id") is None:
        raise refused(
            "has single bytes, or no token for what is unknown", "llama.cpp has one for all that is"
        )
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    first, rest = steps[0], steps[1:]
    if first.get("type") != "Precompiled" or not _spaces_alike(rest, content.get("pre_tokenizer") or {}):
        raise refused(
            "treats spaces, or characters, in a way that llama.cpp has no setting for",
            "it follows SentencePiece's table of characters, joins spaces and puts one before a text",
        )
    added = content.get("added_tokens", [])
    changed = (token for token in added if token.get("normalized") and not token["content"].isascii())
    if any(changed) or any(token.get("single_word") for token in added):
        raise refused("looks for tokens in text that is normalized", "llama.cpp looks for them as they are")
    pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    return Unigram(pieces, int(model["unk_id"]), b64decode(first["precompiled_charsmap"]))


def _spaces_alike(steps: list[dict[str, Any]], pre_tokenizer: dict[str, Any]) -> bool:
    """Whether spaces around a text are dropped, several are one, and each text begins with one."""
    several = pre_tokenizer.get("type") == "Sequence"
    cuts = pre_tokenizer["pretokenizers"] if several else [pre_tokenizer]
    spaces = [{**_SPACES, "content": content} for content in (" ", SPACE)]
    whole = len(cuts) == 1 and any(steps == [_STRIP, one] for one in spaces)
    words = cuts[:-1] == [_SPLIT] and (not steps or any(steps == [one] for one in spaces))
    last = cuts[-1]
    marked = last.get("type") == "Metaspace" and last.get("replacement") == SPACE
    scheme = last.get("prepend_scheme", "always" if last.get("add_prefix_space", True) else "never")
    return (whole or words) and marked and scheme == "always"
