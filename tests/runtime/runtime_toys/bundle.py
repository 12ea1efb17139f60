"""Bundle directories around the toy graphs: tokenizer, external data, manifest."""

import json
import re
from pathlib import Path
from typing import Any

import onnx
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import write_json
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from . import decoder, encoder

TEXTS = (
    "the river ran under old stone bridges while merchants counted copper coins",
    "engineers measured tides, winds and currents. Ça coûte 12 €, naïve señor! 数を数える 🙂🚀",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_bpe(folder: Path) -> int:
    """A byte-level BPE with few merges: most characters beyond ASCII take several tokens. Its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>"},
        "pad_token": "<|endoftext|>",
    }
    write_json(folder / "tokenizer_config.json", names)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def save_wordpiece(folder: Path) -> int:
    """A WordPiece with [CLS] and [SEP], saved with truncation and padding switched on; its size."""
    # Not trained: a trainer of WordPiece breaks ties in another order in every process.
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+|[^\w\s]+", text)})
    letters = sorted({letter for word in words for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *words]
    known = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"pad_token": "[PAD]", "cls_token": "[CLS]"})
    return int(tokenizer.get_vocab_size())


def save_model(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``model.onnx`` with its weights in ``model.onnx.data``."""
    target = folder / "model.onnx"
    onnx.save_model(model, target, save_as_external_data=True, location="model.onnx.data", size_threshold=64)


def write_manifest(folder: Path, **sections: Any) -> None:
    """Write ``manifest.json`` over all files of ``folder``."""
    manifest = {
        "schema": "edgepress.bundle/1",
        "name": "toy",
        "described": "random weights",
        "scheme": "fp32",
        "graph": {"file": "model.onnx", "opset": 21, "ir_version": 10},
        **sections,
        "files": hash_tree(folder, skip=frozenset({"manifest.json"})),
    }
    write_json(folder / "manifest.json", manifest)


def edit_manifest(folder: Path, **sections: Any) -> None:
    """Replace top-level keys of a manifest and hash the files again."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"]
    write_manifest(folder, **(manifest | sections))


def save_decoder_bundle(folder: Path) -> decoder.ToyWeights:
    """Write a whole decoder bundle and return its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = save_bpe(folder)
    weights = decoder.random_weights(vocab)
    save_model(decoder.model(weights), folder)
    write_manifest(folder, kind="decoder", decoder=decoder.section(vocab))
    return weights


def save_encoder_bundle(folder: Path, *, pooled: bool = True, labelled: bool = False) -> int:
    """Write a whole encoder bundle, or that of a classifier, and return its vocabulary size."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = save_wordpiece(folder)
    save_model(encoder.model(vocab, pooled=pooled, labelled=labelled), folder)
    section = encoder.section() if pooled and not labelled else encoder.section(pooling=None)
    if labelled:
        section["labels"] = list(encoder.LABELS)
    write_manifest(folder, kind="encoder", encoder=section)
    return vocab
