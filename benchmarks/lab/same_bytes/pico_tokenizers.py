"""The tokenizers of the pico models: byte-level BPE for decoders, or pieces and single bytes in its place,
WordPiece for encoders, words for T5; and those that encoders and T5 are published with.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .pico_unigram import unigram

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(folder: Path, kind: str, sentences: list[str]) -> int:
    """Train the tokenizer of a ``kind`` and save it; returns its size. Kinds are ``decoder``, ``encoder``,
    ``encoder_decoder``, and as BERT, XLM-R, RoBERTa and T5 are published ``bert``, ``unigram``, ``bytes`` and
    ``unigram_t5``.
    """
    from transformers import PreTrainedTokenizerFast

    kinds: dict[str, Callable[[list[str]], tuple[Any, dict[str, str]]]] = {
        "decoder": _bytes,
        "encoder": _pieces,
        "encoder_decoder": _words,
        "bert": _as_bert,
        "unigram": partial(unigram, begins=True),
        "unigram_t5": partial(unigram, begins=False),
        "bytes": _as_roberta,
    }
    made, names = kinds[kind](sentences)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    if kind == "decoder":
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(fast)


def save_pieces(folder: Path, sentences: list[str], size: int, *, prefixed: bool) -> None:
    """In the place of a decoder's tokenizer one of ``size`` pieces and single bytes, as SentencePiece has
    them and ``tokenizer.json`` lists them: for each piece in turn all pairs that together are that piece.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors, trainers
    from tokenizers import pre_tokenizers as cut
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    singles = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = (
        normalizers.Replace(" ", "▁"),
        cut.Split(Regex("▁"), "merged_with_next"),
    )
    trained.train_from_iterator(sentences, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    known = {piece: index for index, piece in enumerate([*singles, *pieces][:size])}
    pairs = (
        ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        for piece in known
        if piece not in singles
    )
    merges = [pair for group in pairs for pair in group if all(part in known for part in pair)]
    made = Tokenizer(models.BPE(known, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    first = [normalizers.Prepend("▁")] if prefixed else []
    made.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 1)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=["<start_of_turn>", "<end_of_turn>"], **names
    )
    fast.chat_template = CHAT.replace("<|im_start|>", "<start_of_turn>").replace(
        "<|im_end|>", "<end_of_turn>"
    )
    fast.save_pretrained(folder)


def _bytes(sentences: list[str]) -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(sentences, trainer)
    return made, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def _pieces(sentences: list[str]) -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        sentences, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made, {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def _as_bert(sentences: list[str]) -> tuple[Any, dict[str, str]]:
    """In small letters, without accents."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    made, names = _pieces(sentences)
    made = Tokenizer.from_str(made.to_str())
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made, names


def _as_roberta(sentences: list[str]) -> tuple[Any, dict[str, str]]:
    """A token before and one behind each text."""
    from tokenizers import processors

    made, names = _bytes(sentences)
    begin, end = names["bos_token"], names["eos_token"]
    ids = [(token, made.token_to_id(token)) for token in (begin, end)]
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} {end} $B {end}", special_tokens=ids
    )
    return made, names


def _words(sentences: list[str]) -> tuple[Any, dict[str, str]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    found = sorted({word for text in sentences for word in text.rstrip(".").split()})
    words = ["<pad>", "</s>", "<unk>", ".", *found]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
