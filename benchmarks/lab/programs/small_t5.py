"""A small T5 with random weights whose tokens are letters, and a task for it: words get back the vowels that
were left out of them.

A trained encoder–decoder that is free to use comes with no package, so that the check of sequence-level
distillation makes one. The words are those of the Wikipedia demo corpus; what they were is the target.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ....compress.text.corpus import texts_from
from ....compress.text.wikipedia import Split

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["<pad>", "</s>", "<unk>"]
SHORTEST = 4  # letters
_WORD = re.compile("[a-z]+")
_VOWELS = re.compile(r"(?<=[a-z])[aeiou]")


@dataclass(frozen=True)
class Shape:
    """Dimensions; heads have 32 channels, the table is the head too."""

    hidden: int = 128
    ffn: int = 384
    layers: int = 4

    @property
    def heads(self) -> int:
        """Of each attention."""
        return self.hidden // 32


def words(split: Split) -> list[str]:
    """Distinct words of at least :data:`SHORTEST` letters, in lower case, in the order of the corpus."""
    found = (word for text in texts_from("wikipedia", split=split) for word in _WORD.findall(text.lower()))
    return list(dict.fromkeys(word for word in found if len(word) >= SHORTEST))


def shortened(word: str) -> str:
    """The word without its vowels, but for one that it begins with."""
    return _VOWELS.sub("", word)


def save_tokenizer(directory: Path) -> int:
    """A tokenizer of letters that puts </s> behind each text; returns its size."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    known = {token: index for index, token in enumerate([*SPECIAL, *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    return len(known)


def save_small_t5(directory: Path, shape: Shape, seed: int = 0) -> Path:
    """Write the checkpoint with random weights and return ``directory``."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    directory.mkdir(parents=True)
    config = T5Config(
        vocab_size=save_tokenizer(directory),
        d_model=shape.hidden,
        d_kv=shape.hidden // shape.heads,
        d_ff=shape.ffn,
        num_layers=shape.layers,
        num_decoder_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    model.save_pretrained(directory)
    return directory
