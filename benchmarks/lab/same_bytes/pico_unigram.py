"""A small unigram tokenizer as XLM-R and T5 have it, with a table of characters in SentencePiece's compiled
form: a double-array trie of bytes (Aoe, An Efficient Digital Search Algorithm by Using a Double-Array
Structure, 1989), each entry the place of the text that its characters are replaced by.
"""

import struct
from typing import Any

_REPLACED = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "①": "1", "ﬁ": "fi", "Ａ": "A"}
_LEAF, _VALUE = 1 << 8, 1 << 31
_BLOCK = 256  # of units; the children of each node have one to themselves


def unigram(sentences: list[str], *, begins: bool) -> tuple[Any, dict[str, str]]:
    """The tokenizer and its special tokens; a text ``begins`` with one (XLM-R) or only ends so (T5)."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>"] if begins else ["<pad>", "</s>", "<unk>"]
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Precompiled(characters(_REPLACED))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(sentences, trainer)
    first = "<s> " if begins else ""
    made.post_processor = processors.TemplateProcessing(
        single=f"{first}$A </s>",
        pair=f"{first}$A </s> {'</s> ' if begins else ''}$B </s>",
        special_tokens=[(name, special.index(name)) for name in ("<s>", "</s>") if name in special],
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return made, names | ({"bos_token": "<s>"} if begins else {})


def characters(replaced: dict[str, str]) -> bytes:
    """The compiled table."""
    texts, places = b"", {}
    for key, value in replaced.items():
        places[key.encode()] = len(texts)
        texts += value.encode() + b"\0"
    units: dict[int, int] = {}
    blocks = iter(range(_BLOCK, 1 << 21, _BLOCK))
    _add_node(units, blocks, places, b"", 0)
    trie = [units.get(place, 0) for place in range(next(blocks))]
    packed = struct.pack(f"<{len(trie)}I", *trie)
    return struct.pack("<I", len(packed)) + packed + texts


def _add_node(units: dict[int, int], blocks: Any, places: dict[bytes, int], prefix: bytes, at: int) -> None:
    """The node of ``prefix`` at the unit ``at``, with all below it."""
    block, size = next(blocks), len(prefix)
    label = prefix[-1] if prefix else 0
    units[at] = (at ^ block) << 10 | label
    if prefix in places:
        units[at] |= _LEAF
        units[block] = places[prefix] | _VALUE
    for byte in sorted({key[size] for key in places if key.startswith(prefix) and len(key) > size}):
        _add_node(units, blocks, places, prefix + bytes([byte]), block ^ byte)
