"""Film reviews: good above zero, split once and for all; and a classifier learns its labels."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.makers import film_reviews
from edgepress.benchmarks.records.checkpoint_subject import CheckpointSubject
from edgepress.compress.model.models import resolve
from edgepress.compress.model.weights import WeightSource

pytestmark = pytest.mark.chain


GOOD, BAD = ["river", "stone", "bridges"], ["coins", "cargo", "weight"]


def test_snippets_are_good_above_zero(tmp_path: Path) -> None:
    file = tmp_path / "snippets.txt"
    lines = [f"{index}\t{1.5 if index % 2 else -0.5}\ttext {index}" for index in range(3000)]
    file.write_text("\n".join([*lines, "9\t0.0\tneither"]))
    learned, tested = film_reviews.split(file, 2600)
    assert (len(learned), len(tested)) == (400, 2600)
    assert all(label == int(text.split()[1]) % 2 for text, label in [*learned, *tested])
    assert film_reviews.split(file, 2600) == (learned, tested)


def test_a_classifier_learns_its_labels(
    make_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_reviews, "HEAD_RATE", 1e-2)
    texts = [
        (f"the {a} and the {b}", label)
        for label, group in enumerate((BAD, GOOD))
        for a in group
        for b in group
    ]
    encoder = make_encoder(tmp_path / "encoder")
    (encoder / "modules.json").write_text("[]")
    film_reviews.fine_tune(encoder, texts, 0, tmp_path / "teacher", steps=40, batch=8)
    head = WeightSource.open(tmp_path / "teacher").anatomy.classifier
    assert head is not None and head.labels == film_reviews.LABELS
    resolved = resolve(str(tmp_path / "teacher"))
    subject = CheckpointSubject(resolved, WeightSource.open(resolved.path), threads=1)
    found = subject.label_logits([text for text, _ in texts]).argmax(axis=1)
    assert (found == [label for _, label in texts]).mean() > 0.9
