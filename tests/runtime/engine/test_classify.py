"""Classifier bundles: labels and probabilities, the verb, and which verb is for which bundle."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.errors import BundleError, InputError
from edgepress.runtime.api import EmbeddingModel, open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.classify import ClassifierModel
from runtime_toys.bundle import edit_manifest, save_encoder_bundle
from runtime_toys.encoder import LABELS, reference_embedding, section

TEXTS = ["river", "old stone bridges", "merchants counted copper coins"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy classifier. Read only."""
    folder = tmp_path_factory.mktemp("classifier") / "bundle"
    save_encoder_bundle(folder, labelled=True)
    return folder


def expected(model: ClassifierModel, text: str) -> np.ndarray:
    """The probabilities by the definition of softmax."""
    ids = model.tokenizer.encode(text, max_length=model.encoder.max_length)
    logits = reference_embedding(ids, model.tokenizer.vocab_size)[: len(LABELS)].astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum()


def test_each_text_has_its_label(bundle: Path) -> None:
    model = open_bundle(bundle, threads=1)
    assert isinstance(model, ClassifierModel) and model.labels == LABELS
    found = model.classify(TEXTS)
    for text, one in zip(TEXTS, found, strict=True):
        want = expected(model, text)
        assert np.allclose([one.probabilities[label] for label in LABELS], want, atol=1e-6)
        assert (one.label, one.probability) == (LABELS[want.argmax()], max(one.probabilities.values()))
    assert model.classify("river") == found[:1]
    assert model.classify([]) == []


def test_many_texts_in_windows_and_lanes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = ClassifierModel(Bundle.open(bundle), threads=1).logits(TEXTS * 8)
    monkeypatch.setattr("edgepress.runtime.engine.encoder.WINDOW", 5)
    together = ClassifierModel(Bundle.open(bundle), threads=2).logits(TEXTS * 8, batch_size=2)
    assert np.allclose(alone, together, atol=1e-6)


def test_a_classifier_has_no_embeddings_and_an_encoder_no_labels(bundle: Path, encoder_bundle: Path) -> None:
    with pytest.raises(InputError, match="edgepress classify"):
        EmbeddingModel(Bundle.open(bundle), threads=1).encode(["river"])
    with pytest.raises(InputError, match="edgepress classify"):
        EmbeddingModel(Bundle.open(bundle), threads=1).encoder.embed_ids([[2, 5, 3]])
    with pytest.raises(InputError, match="edgepress encode"):
        ClassifierModel(Bundle.open(encoder_bundle), threads=1).classify(["river"])


def test_a_manifest_that_does_not_fit_the_graph(bundle: Path, encoder_bundle: Path, tmp_path: Path) -> None:
    more = shutil.copytree(bundle, tmp_path / "more")
    edit_manifest(more, encoder=section(pooling=None, labels=[*LABELS, "best"]))
    with pytest.raises(BundleError, match="4 wide"):
        ClassifierModel(Bundle.open(more), threads=1).classify(["river"])
    none = shutil.copytree(encoder_bundle, tmp_path / "none")
    edit_manifest(none, encoder=section(labels=list(LABELS)))
    with pytest.raises(BundleError, match="no logits"):
        ClassifierModel(Bundle.open(none), threads=1).classify(["river"])


@pytest.mark.parametrize("labels", [[], "bad", [1, 2]])
def test_labels_that_are_none(labels: object, bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "b")
    edit_manifest(folder, encoder=section(pooling=None, labels=labels))
    with pytest.raises(BundleError, match="labels"):
        Bundle.open(folder)


def test_the_verb_shows_labels(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["classify", str(bundle), *TEXTS]) == 0
    shown = capsys.readouterr().out
    for one in ClassifierModel(Bundle.open(bundle), threads=1).classify(TEXTS):
        assert one.label in shown and f"{one.probability:.3f}" in shown


def test_the_verb_reads_stdin_and_writes_json(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"river\n\nold stone\n")))
    assert run(["classify", str(bundle), "copper", "--file", "-", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == list(LABELS)
    assert [row["text"] for row in found["texts"]] == ["copper", "river", "old stone"]
    for row in found["texts"]:
        assert row["probability"] == row["probabilities"][row["label"]] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1)


def test_the_verbs_say_which_one_is_meant(
    bundle: Path, encoder_bundle: Path, decoder_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, path, meant in [
        ("encode", bundle, "classify"),
        ("classify", encoder_bundle, "encode"),
        ("classify", decoder_bundle, "generate"),
    ]:
        assert run([verb, str(path), "river"]) == 2
        assert f"edgepress {meant}" in capsys.readouterr().err
    assert run(["generate", str(bundle), "--prompt", "x"]) == 2
    assert "edgepress classify" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--file", "nothing.txt"]])
def test_the_verb_wants_texts(arguments: list[str], bundle: Path) -> None:
    assert run(["classify", str(bundle), *arguments]) == 2
