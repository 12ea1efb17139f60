"""The check of film reviews: its teacher is a classifier that edgepress reads, its students are recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs import sentiment
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.recipe import parse

GOOD, BAD = ["river", "stone", "bridges"], ["coins", "cargo", "weight"]


def test_snippets_are_good_above_zero(tmp_path: Path) -> None:
    file = tmp_path / "snippets.txt"
    lines = [f"{index}\t{1.5 if index % 2 else -0.5}\ttext {index}" for index in range(3000)]
    file.write_text("\n".join([*lines, "9\t0.0\tneither"]))
    learned, tested = sentiment.snippets(file)
    assert (len(learned), len(tested)) == (400, sentiment.TESTED)
    assert all(label == int(text.split()[1]) % 2 for text, label in [*learned, *tested])
    assert sentiment.snippets(file) == (learned, tested)


def test_a_teacher_learns_its_labels(
    make_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "STEPS", 40)
    monkeypatch.setattr(sentiment, "BATCH", 8)
    monkeypatch.setattr(sentiment, "HEAD_RATE", 1e-2)
    words = [
        (f"the {a} and the {b}", 1 if group is GOOD else 0)
        for group in (GOOD, BAD)
        for a in group
        for b in group
    ]
    encoder = make_encoder(tmp_path / "encoder")
    (encoder / "modules.json").write_text("[]")
    sentiment.fine_tune(encoder, words, 0, tmp_path / "teacher")
    head = WeightSource.open(tmp_path / "teacher").anatomy.classifier
    assert head is not None and head.labels == sentiment.LABELS
    assert sentiment.accuracy(tmp_path / "teacher", words) > 0.9


def test_every_student_is_a_recipe() -> None:
    for name, share in sentiment.SHARES.items():
        passes = [{"pass": "layers", "keep": share}, sentiment.LEARN]
        assert [step for step, _ in parse({"name": name, "passes": passes}, name).steps] == [
            "layers",
            "distill",
        ]
