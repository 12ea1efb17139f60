"""The child process that builds a WordPiece or unigram tokenizer of a GGUF file, which transformers does
not (``runtime/text/worker.py``).

It imports nothing of edgepress.
"""

import json
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

_SPACE, _INSIDE = "▁", "##"
_CONTROL, _USER, _UNUSED = 3, 4, 5
# What the settings call the special tokens, and what tokenizers do.
_NAMES = {
    "bos_token_id": "cls_token",
    "eos_token_id": "eos_token",
    "seperator_token_id": "sep_token",
    "unknown_token_id": "unk_token",
    "padding_token_id": "pad_token",
}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Save the tokenizer of ``file`` in the directory ``target``."""
    fields = GGUFReader(asked["file"]).fields
    own = {
        name.removeprefix("tokenizer.ggml."): field.contents()
        for name, field in fields.items()
        if name.startswith("tokenizer.ggml.")
    }
    made = _word_pieces(own) if own["model"] == "bert" else _unigram(own)
    tokens, kinds = own["tokens"], own["token_type"]
    for special in (True, False):
        chosen = _CONTROL if special else _USER
        added = [token for token, kind in zip(tokens, kinds, strict=True) if kind == chosen]
        add = made.add_special_tokens if special else made.add_tokens
        add([AddedToken(token, normalized=False, special=special) for token in added])
    target = Path(asked["target"])
    made.save(str(target / "tokenizer.json"))
    names = {ours: tokens[own[theirs]] for theirs, ours in _NAMES.items() if theirs in own}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {}


def _word_pieces(own: dict[str, Any]) -> Tokenizer:
    """Tokens that begin a word have ▁ before them in the file."""
    known = {
        _plain(token, kind): index
        for index, (token, kind) in enumerate(zip(own["tokens"], own["token_type"], strict=True))
        if kind != _UNUSED
    }
    made = Tokenizer(models.WordPiece(known, unk_token=own["tokens"][own["unknown_token_id"]]))
    lowercase = own.get("normalizer.lowercase", True)
    accents = own.get("normalizer.strip_accents", lowercase)
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _plain(token: str, kind: int) -> str:
    if kind in (_CONTROL, _USER):
        return token
    return token.removeprefix(_SPACE) if token.startswith(_SPACE) else _INSIDE + token


def _unigram(own: dict[str, Any]) -> Tokenizer:
    pieces = list(zip(own["tokens"], own["scores"], strict=True))
    made = Tokenizer(models.Unigram(pieces, unk_id=own["unknown_token_id"]))
    made.normalizer = normalizers.Precompiled(bytes(own["precompiled_charsmap"]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return made
