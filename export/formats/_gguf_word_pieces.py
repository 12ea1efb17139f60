"""A WordPiece tokenizer (BERT) in llama.cpp's form: what begins a word has ▁ before it, and what goes on with
one has not.

llama.cpp cuts text into words as BERT does: by spaces, punctuation and Chinese characters. Schuster and
Nakajima, Japanese and Korean Voice Search, 2012; Devlin et al., BERT, 2018, arXiv 1810.04805.
"""

from __future__ import annotations

from typing import Any

from ...compress.model.gguf.architecture import WAY_OUT
from ...errors import InputError
from ._gguf_pieces import SPACE

_INSIDE = "##"  # before what goes on with a word
_LOWERCASE, _STRIP_ACCENTS = (f"tokenizer.ggml.normalizer.{step}" for step in ("lowercase", "strip_accents"))


def add_steps(writer: Any, content: dict[str, Any]) -> None:
    """Add whether words are in small letters, and without accents; refuses a ``tokenizer.json`` of WordPiece
    that is another than llama.cpp's.
    """
    steps = content.get("normalizer") or {}
    if steps.get("type") != "BertNormalizer" or not (steps["clean_text"] and steps["handle_chinese_chars"]):
        raise refused(
            "normalizes text in another way than BERT",
            "llama.cpp drops control characters and takes each Chinese character for a word in any case",
        )
    if content.get("pre_tokenizer") != {"type": "BertPreTokenizer"}:
        raise refused("cuts text into words in another way than BERT", "llama.cpp knows that way alone")
    if content["model"].get("continuing_subword_prefix") != _INSIDE:
        raise refused(
            f"marks what goes on with a word by something else than {_INSIDE}", "a file has no mark"
        )
    if any(token.get("normalized") or token.get("single_word") for token in content.get("added_tokens", [])):
        raise refused("looks for tokens in text that is normalized", "llama.cpp looks for them as they are")
    lowercase, accents = bool(steps["lowercase"]), steps.get("strip_accents")
    writer.add_bool(_LOWERCASE, lowercase)
    writer.add_bool(_STRIP_ACCENTS, lowercase if accents is None else bool(accents))


def word_piece(token: str) -> str:
    """What a token is called in the file."""
    return token.removeprefix(_INSIDE) if token.startswith(_INSIDE) else SPACE + token


def refused(what: str, why: str) -> InputError:
    """A tokenizer that llama.cpp has not."""
    return InputError(f"the tokenizer {what}, and llama.cpp would give other tokens", why=why, fix=WAY_OUT)
