"""A model with a cut vocabulary beside its original: bits per byte of the same text, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from edgepress.benchmarks.quality.across_vocabularies import is_cut, score_across
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.compress.api import compress_model
from edgepress.runtime.text.tokenizer import Tokenizer
from transformers import AutoModelForCausalLM

TEXT = "the river ran under old stone bridges"


@pytest.fixture
def cut(pico_llama: Path, tmp_path: Path) -> Path:
    corpus, recipe = tmp_path / "corpus.txt", tmp_path / "recipe.yaml"
    corpus.write_text(TEXT, encoding="utf-8")
    recipe.write_text(yaml.safe_dump({"passes": [{"pass": "vocabulary", "corpus": str(corpus)}]}))
    return compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "cut")


def test_bits_per_byte_equal_a_calculation_by_hand(pico_llama: Path, cut: Path) -> None:
    ids = Tokenizer.open(pico_llama).encode(TEXT)
    scores = score_across(open_subject(cut), open_subject(pico_llama), np.array([ids]))
    own = torch.tensor(Tokenizer.open(cut).encode(TEXT))
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(cut)(own[None]).logits[0, :-1].double()
    nats = torch.nn.functional.cross_entropy(logits, own[1:], reduction="sum")
    size = len(TEXT.encode()) - len(Tokenizer.open(cut).decode(own[:1].tolist()).encode())
    found = scores["bits_per_byte"].of_subject().value
    assert found == pytest.approx(float(nats) / math.log(2) / size, rel=1e-5)


def test_only_a_part_of_the_tokens_is_a_cut(pico_llama: Path, pico_bert: Path, cut: Path) -> None:
    original, less, other = (open_subject(path) for path in (pico_llama, cut, pico_bert))
    assert is_cut(less, original)
    assert not is_cut(original, original) and not is_cut(other, original) and not is_cut(original, less)


def test_validate_measures_what_compares(pico_llama: Path, pico_text: Path, cut: Path) -> None:
    line = validate_bundle(cut, pico_llama, text=pico_text, windows=2, length=32)
    assert set(line.metrics) == {"bits_per_byte"}
