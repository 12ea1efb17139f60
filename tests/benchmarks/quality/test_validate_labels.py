"""Validation of classifiers: agreement, KL and accuracy of labels, on prose and on rows with labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality.quality_table import rows as table_rows
from edgepress.benchmarks.quality.validate import plan_validation, validate_bundle
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.text.corpus import read_corpus
from edgepress.errors import InputError
from edgepress.export.api import export_bundle

pytestmark = pytest.mark.chain


LABELS = ("bad", "fair", "good")
TEXTS = [" ".join(["river", "stone", "coins", "tides"][: 1 + n % 4] * (1 + n)) for n in range(12)]


@pytest.fixture(scope="module")
def classifier(make_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with three labels. Read only."""
    return make_encoder(tmp_path_factory.mktemp("head") / "bert", labels=LABELS)


@pytest.fixture(scope="module")
def bundle(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with integer products. Read only."""
    folder = tmp_path_factory.mktemp("bundle")
    return export_bundle(
        compress_model(str(classifier), scheme="W8A8", output=folder / "c"), output=folder / "b"
    )


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def probabilities(path: Path) -> np.ndarray:
    """Of the texts one by one, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        logits = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0] for text in TEXTS]
    return torch.stack(logits).double().softmax(-1).numpy()


def test_labels_of_rows_count_as_right(classifier: Path, bundle: Path, tmp_path: Path) -> None:
    known = [LABELS[n % 3] if n % 2 else n % 3 for n in range(len(TEXTS))]  # by name and by number
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, known, strict=True)]
    text, runs = written(tmp_path / "rows.jsonl", [*rows, {"text": "without one"}]), tmp_path / "x.jsonl"
    line = validate_bundle(bundle, classifier, text=text, threads=1, record=runs)
    assert set(line.metrics) == {"label_kl", "label_agreement", "label_accuracy"}
    want = probabilities(classifier)
    right = float((want.argmax(-1) == np.arange(len(TEXTS)) % 3).mean())
    assert line.compare is not None
    assert line.compare["original"]["label_accuracy"]["value"] == pytest.approx(right)
    mine = open_subject(bundle, threads=1).label_logits(TEXTS).astype(np.float64)
    mine = np.exp(mine) / np.exp(mine).sum(-1, keepdims=True)
    nats = (want * np.log(want / mine)).sum(-1).mean()
    assert line.metrics["label_kl"].value == pytest.approx(nats, rel=1e-3, abs=1e-7)
    same = float((want.argmax(-1) == mine.argmax(-1)).mean())
    assert line.metrics["label_agreement"].value == pytest.approx(same)
    assert line.workload["labelled"] is True and line.workload["sentences"] == len(TEXTS)
    assert record.read([runs])[0].metrics["label_kl"].value == 0
    assert {row[0] for row in table_rows(line)} >= {"accuracy of labels", "agreement of labels"}


def test_prose_has_no_right_labels(classifier: Path, bundle: Path, pico_text: Path) -> None:
    line = validate_bundle(bundle, classifier, text=pico_text, sentences=20, threads=1)
    assert set(line.metrics) == {"label_kl", "label_agreement"}
    assert line.metrics["label_agreement"].n == 20
    chance, label = line.answers[0].original.split(" ", 1)
    assert label in LABELS and 1 / 3 <= float(chance) + 0.01 <= 1.01
    same = validate_bundle(classifier, classifier, text=pico_text, sentences=20, threads=1)
    assert (same.metrics["label_kl"].value, same.metrics["label_agreement"].value) == (0, 1)


def test_labels_that_the_classifier_does_not_give(classifier: Path, tmp_path: Path) -> None:
    for label in ("best", 3):
        text = written(tmp_path / "rows.jsonl", [{"text": "river", "label": label}])
        with pytest.raises(InputError, match="does not give"):
            validate_bundle(classifier, classifier, text=text, threads=1)


def test_models_of_other_labels(
    classifier: Path, pico_bert: Path, pico_text: Path, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_encoder(tmp_path / "other", labels=("no", "yes"))
    for subject in (other, pico_bert):
        for measure in (plan_validation, validate_bundle):
            with pytest.raises(InputError, match="the labels"):
                measure(subject, classifier, text=pico_text)
    with pytest.raises(InputError, match="not embeddings"):
        open_subject(classifier, threads=1).embeddings(["river"])
    with pytest.raises(InputError, match="no labels"):
        open_subject(pico_bert, threads=1).label_logits(["river"])


def test_the_verb_has_gates(
    classifier: Path, bundle: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", str(bundle), "--against", str(classifier), "--text", str(pico_text)]
    words += ["--sentences", "16", "--threads", "1", "--record", str(tmp_path / "x.jsonl")]
    assert run([*words, "--min-label-agreement", "0", "--hub-benchmark", "someone/texts"]) == 2
    assert "OWNER/NAME:TASK" in capsys.readouterr().err
    assert run([*words, "--min-label-agreement", "0"]) == 0
    assert run([*words, "--max-label-kl", "0"]) == 1
    assert "label_kl" in capsys.readouterr().err
    assert run(["compare", str(tmp_path / "x.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "label KL" in shown and "cosine" not in shown


def test_a_corpus_keeps_the_labels_of_its_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": "one", "label": "good"},
        {"text": " ", "label": "bad"},
        {"text": "two", "label": 1.5},
        {"text": "three", "label": 0},
    ]
    corpus = read_corpus(str(written(tmp_path / "rows.jsonl", rows)))
    assert (corpus.documents, corpus.labels, corpus.empty) == (("one", "two", "three"), ("good", None, 0), 1)
    assert read_corpus(str(written(tmp_path / "bare.jsonl", [{"text": "one"}]))).labels == ()
