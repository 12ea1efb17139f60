"""A small T5 whose tokens are letters, and its task: words get back the vowels that were left out of them.

A trained encoder–decoder that is free to use comes with no package, so that the study of sequence-level
distillation makes one. The words are those of the Wikipedia demo corpus; what they were is the target. With
``part: sources`` shortened words are made, which a student learns from; with ``of`` a student is made: the
model ``of`` cut to ``layers`` of each stack and trained on as many ``words`` in pairs, or not trained with no
``steps``.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....compress.model.torch_model import load_model
from ....compress.model.weights import WeightSource
from ....compress.text.demo_corpora import Split
from ....compress.train.students.distill_students import shallow_source
from ....files.storage import write_atomic
from ....runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..study.sources import Sources

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["<pad>", "</s>", "<unk>"]
SHORTEST = 4  # letters
_WORD = re.compile("[a-z]+")
_VOWELS = re.compile(r"(?<=[a-z])[aeiou]")
BATCH, RATE, ANSWER = 64, 2e-3, 32
TESTED = 1000
PICO: dict[str, Any] = {"hidden": 32, "ffn": 64, "steps": 2}


def make(
    target: Path,
    sources: Sources,
    *,
    part: str = "",
    of: dict[str, Any] | None = None,
    layers: int = 4,
    steps: int = 2000,
    words: int | None = None,
    hidden: int = 128,
    ffn: int = 384,
) -> None:
    """Write the model, or a ``part`` of the text; ``words`` of them are learned from, all by default."""
    learned = words_of(sources, "calibration")
    if words is not None:
        learned = random.Random(1).sample(learned, min(words, len(learned)))
    if part == "sources":
        rows = [json.dumps({"text": shortened(word)}) for word in learned]
        target.mkdir()
        write_atomic(target / "sources.jsonl", "\n".join(dict.fromkeys(rows)).encode())
        return
    began = target.with_name(f"{target.name}.untrained")
    shutil.rmtree(began, ignore_errors=True)
    if of is None:
        save_small_t5(began, T5Shape(hidden, ffn, layers))
    else:
        teacher = WeightSource.open(Path(sources.model(of)))
        shallow_source(teacher, (layers, layers), began.with_name(f"{began.name}.work")).reader.path.rename(
            began
        )
    if steps:
        train(began, learned, steps, target)
    else:
        began.rename(target)


@dataclass(frozen=True)
class T5Shape:
    """Dimensions; heads have 32 channels, the table is the head too."""

    hidden: int = 128
    ffn: int = 384
    layers: int = 4

    @property
    def heads(self) -> int:
        """Of each attention."""
        return self.hidden // 32


def words_of(sources: Sources, split: Split) -> list[str]:
    """Distinct words of at least :data:`SHORTEST` letters, in lower case, in the order of the corpus."""
    documents = sources.documents("wikipedia", split)
    found = (word for text in documents for word in _WORD.findall(text.lower()))
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
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(known)


def save_small_t5(directory: Path, shape: T5Shape, seed: int = 0) -> Path:
    """Write the checkpoint with random weights and return ``directory``."""
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


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """``[rows, longest]``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def encoded(tokenizer: Tokenizer, chosen: Sequence[str]) -> dict[str, Tensor]:
    """What transformers' model takes: shortened words, their mask, and the words as labels."""
    ids = padded(tokenizer.encode_batch([shortened(word) for word in chosen]), -1)
    labels = padded(tokenizer.encode_batch(list(chosen)), -100)
    return {"input_ids": ids.clamp_min(0), "attention_mask": (ids >= 0).long(), "labels": labels}


def train(path: Path, learned: Sequence[str], steps: int, target: Path) -> None:
    """Write the model at ``path``, trained on ``learned`` words, to ``target``."""
    from transformers import AutoModelForSeq2SeqLM

    model, tokenizer, draw = (
        AutoModelForSeq2SeqLM.from_pretrained(path).train(),
        Tokenizer.open(path),
        random.Random(0),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        loss = model(**encoded(tokenizer, draw.sample(list(learned), min(BATCH, len(learned))))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(target)
    for file in path.glob("tokenizer*"):
        shutil.copyfile(file, target / file.name)


def measure(checkpoint: Path, original: Path, sources: Sources) -> dict[str, float]:
    """Of words that no model has seen: the fraction right and equal to the original's answer, and the
    cross-entropy, nats a letter.
    """
    seen = set(words_of(sources, "calibration"))
    unseen = [word for word in words_of(sources, "held-out") if word not in seen] or sorted(seen)
    tested = random.Random(2).sample(unseen, min(TESTED, len(unseen)))
    written, loss = answers(checkpoint, tested)
    teacher = written if checkpoint == original else answers(original, tested)[0]
    return {
        "words_right": _equal(written, tested),
        "words_as_the_teacher's": _equal(written, teacher),
        "nats_a_letter": loss,
    }


def _equal(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(mine == theirs for mine, theirs in zip(one, other, strict=True)) / len(other)


@torch.no_grad()
def answers(path: Path, tested: Sequence[str]) -> tuple[list[str], float]:
    """What the model at ``path`` writes greedily for shortened words, and minus the mean log-probability of
    a letter of the words.
    """
    model, tokenizer = load_model(path), Tokenizer.open(path)
    written, lost, counted = [], 0.0, 0
    for start in range(0, len(tested), 100):
        batch = encoded(tokenizer, tested[start : start + 100])
        letters = int((batch["labels"] >= 0).sum())
        lost, counted = lost + float(model(**batch).loss) * letters, counted + letters
        sources = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**sources, max_new_tokens=ANSWER, do_sample=False)  # type: ignore[operator]
        written += [tokenizer.decode([token for token in row if token > 1]) for row in ids.tolist()]
    return written, lost / counted
