"""The check of sequence-level distillation: its task, its teacher, and that what it asks for is a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.programs import sequence
from edgepress.benchmarks.lab.programs.small_t5 import LETTERS, SPECIAL, Shape, save_small_t5, shortened
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.recipe import parse
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.storage import read_json

WORDS = ["river", "under", "merchants", "weight", "counted"]


def test_vowels_that_begin_a_word_stay() -> None:
    assert [shortened(word) for word in WORDS[:3]] == ["rvr", "undr", "mrchnts"]
    assert shortened("idea") == "id"


def test_tokens_are_letters(tmp_path: Path) -> None:
    model = save_small_t5(tmp_path / "m", Shape(layers=1))
    tokenizer = Tokenizer.open(model)
    ids = tokenizer.encode("river")
    assert len(ids) == 6 and ids[-1] == 1 and ids[3] == len(SPECIAL) + LETTERS.index("e")
    assert tokenizer.decode(ids[:-1]) == "river"
    batch = sequence.encoded(tokenizer, WORDS)
    assert batch["attention_mask"].sum(1).tolist() == [len(shortened(word)) + 1 for word in WORDS]
    assert (batch["labels"] >= 0).sum(1).tolist() == [len(word) + 1 for word in WORDS]


def test_a_teacher_learns_what_the_measurement_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "BATCH", 4)
    monkeypatch.setattr(sequence, "RATE", 5e-3)
    torch.manual_seed(0)
    model = save_small_t5(tmp_path / "m", Shape(hidden=64, ffn=128, layers=1))
    before = sequence.answers(model, WORDS)
    sequence.train(model, WORDS, 300, tmp_path / "t")
    written, loss = sequence.answers(tmp_path / "t", WORDS)
    assert before[0] != WORDS and loss < 0.1 * before[1]
    assert written == WORDS
    assert read_json(tmp_path / "t.cost.json")["cpu_seconds"] > 0
    assert WeightSource.open(tmp_path / "t").anatomy.layers() == (1, 1)


def test_the_student_is_a_recipe() -> None:
    recipe = parse({"name": "sequence", "embedding": None, "passes": [sequence.LEARN]}, "check")
    (name, step), half = recipe.steps[0], Shape().layers // 2
    assert name == "distill" and step.student_layers == (half, half)  # type: ignore[attr-defined]
