"""Classifiers of texts against transformers: families, schemes, and the whole bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.cli.entry import run as verb
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.proof import encoder_proof
from edgepress.export.proof.distances import KL_MEAN, noise_bound
from edgepress.export.proof.encoder_proof import compare_labels
from edgepress.export.proof.streamed_stacks import label_logits
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.classify import ClassifierModel
from edgepress.runtime.session.session import open_session
from transformers import AutoModelForSequenceClassification, AutoTokenizer

pytestmark = pytest.mark.chain


LABELS = ("bad", "fair", "good")
TEXTS = ["the river ran", "merchants counted copper coins under old stone bridges", "tides"]
TOLERANCE = 2e-5
Make = Callable[..., Path]


def batch() -> dict[str, Any]:
    ids = np.random.default_rng(2).integers(5, 100, (3, 33), dtype=np.int64)
    mask = (np.arange(33) < np.array([[33], [20], [1]])).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def run(path: Path, feeds: dict[str, Any]) -> np.ndarray:
    session = open_session(path, threads=1)
    if any(node.name == "token_type_ids" for node in session.get_inputs()):
        feeds = feeds | {"token_type_ids": np.zeros_like(feeds["input_ids"])}
    return session.run(["logits"], feeds)[0]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra", "mpnet", "albert"])
@pytest.mark.parametrize("scheme", [None, "W8A8"])
@pytest.mark.parametrize("form", [CPU, OWN])
def test_logits_are_those_of_transformers(
    model_type: str,
    scheme: str | None,
    form: ProviderForm,
    make_encoder: Make,
    export_graph: Any,
    tmp_path: Path,
) -> None:
    path = make_encoder(tmp_path / "model", model_type, labels=LABELS)
    exported, feeds = export_graph(path, scheme, form=form), batch()
    found = run(exported.path, feeds)
    assert found.shape == (3, len(LABELS))
    if scheme is None:
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        with torch.no_grad():
            np.testing.assert_allclose(found, model(**tensors).logits.numpy(), atol=TOLERANCE)
    else:
        want = label_logits(exported.source.model(activations=True), feeds).numpy()
        # Logits of unit size, with the error of two independent roundings of hidden states (2 % each).
        assert np.abs(found - want).max() < 0.2


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("modernbert", {}),
        ("modernbert", {"classifier_pooling": "mean", "norm_bias": True, "classifier_bias": True}),
        ("eurobert", {}),
        ("nomic_bert", {}),
        ("gte", {}),
        ("deberta-v2", {}),
        ("deberta-v2", {"pooler_hidden_act": "tanh"}),
        ("eurobert", {"classifier_pooling": "mean"}),
    ],
)
def test_logits_of_encoders_without_a_table_of_positions(
    model_type: str, changes: dict[str, Any], make_encoder: Make, export_graph: Any, tmp_path: Path
) -> None:
    path, feeds = make_encoder(tmp_path / "model", model_type, labels=LABELS, **changes), batch()
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(value) for name, value in feeds.items()}).logits.numpy()
    np.testing.assert_allclose(run(export_graph(path).path, feeds), want, atol=TOLERANCE)


@pytest.fixture(scope="module")
def classifier(make_encoder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with three labels. Read only."""
    return make_encoder(tmp_path_factory.mktemp("head") / "bert", labels=LABELS)


@pytest.fixture(scope="module")
def compressed(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with integer products. Read only."""
    return compress_model(str(classifier), scheme="W8A8", output=tmp_path_factory.mktemp("ckpt") / "w8a8")


def test_a_checkpoint_keeps_its_head(classifier: Path, compressed: Path) -> None:
    before = AutoModelForSequenceClassification.from_pretrained(classifier)
    after = AutoModelForSequenceClassification.from_pretrained(compressed)
    assert torch.equal(before.classifier.weight, after.classifier.weight)
    assert torch.equal(before.bert.pooler.dense.weight, after.bert.pooler.dense.weight)
    assert after.config.id2label == dict(enumerate(LABELS))


def test_a_bundle_from_end_to_end(classifier: Path, compressed: Path, tmp_path: Path) -> None:
    plain = export_bundle(classifier, output=tmp_path / "plain")
    model = open_bundle(plain, threads=1)
    assert isinstance(model, ClassifierModel)
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    reference = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
        want = reference(**inputs).logits.softmax(-1).numpy()
    found = model.classify(TEXTS)
    assert [list(one.probabilities) for one in found] == [list(LABELS)] * 3
    got = np.array([list(one.probabilities.values()) for one in found])
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert [one.label for one in found] == [LABELS[index] for index in want.argmax(-1)]

    rounded = export_bundle(compressed, output=tmp_path / "rounded")
    manifest = json.loads((rounded / "manifest.json").read_text())
    assert (manifest["kind"], manifest["encoder"]["labels"]) == ("encoder", list(LABELS))
    proof = manifest["parity"]["quantized"]
    assert 0 <= proof["label_kl_mean"] <= noise_bound(KL_MEAN, proof["label_kl_of_rounding"])
    assert proof["bounds"].keys() == {"cosine_distance_mean", "label_kl_mean"}
    assert 'classify . "a sentence"' in (rounded / "README.md").read_text()
    params = manifest["weights"]["params"]
    assert params == sum(parameter.numel() for parameter in reference.parameters())


def test_a_wrong_head_fails_the_proof(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_proof, "label_logits", lambda model, feeds: label_logits(model, feeds) + 0.01)
    with pytest.raises(GateFailed, match="behind the last block"):
        export_bundle(classifier, output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_labels_that_are_far_apart_fail_the_proof() -> None:
    logits = np.array([[0.0, 3.0], [2.0, 0.0]], np.float32)
    same = compare_labels([logits], [logits], [logits])
    assert (same["label_kl_mean"], same["label_agreement"]) == (0, 1)
    with pytest.raises(GateFailed, match="labels"):
        compare_labels([logits[::-1]], [logits], [logits])


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_a_reranker_orders_texts_as_transformers_scores_pairs(
    model_type: str, make_encoder: Make, tmp_path: Path
) -> None:
    model = make_encoder(tmp_path / "model", model_type, labels=["LABEL_0"])
    bundle = export_bundle(model, output=tmp_path / "bundle", validate=False)
    opened = ClassifierModel(Bundle.open(bundle), threads=1)
    found = opened.rerank(TEXTS[0], TEXTS)
    theirs = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    for text, score in zip(TEXTS, found, strict=True):
        pair = tokenizer(TEXTS[0], text, return_tensors="pt", return_token_type_ids=True)
        given = {name: pair[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        if model_type != "bert":
            del given["token_type_ids"]
        with torch.no_grad():
            logit = theirs(**given).logits[0, 0]
        assert score == pytest.approx(float(logit.sigmoid()), abs=1e-5)
    with pytest.raises(InputError, match="edgepress rerank"):
        opened.classify(TEXTS)
    assert 'rerank . "a question"' in (bundle / "README.md").read_text()


def test_a_reranker_is_rounded_proven_and_ordered_by_the_verb(
    make_encoder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_encoder(tmp_path / "model", "bert", labels=["LABEL_0"])
    out = compress_model(str(model), scheme="W8A8", output=tmp_path / "out")
    bundle = export_bundle(out, output=tmp_path / "bundle")
    quantized = json.loads((bundle / "manifest.json").read_text())["parity"]["quantized"]
    assert 0 < quantized["label_kl_mean"] <= quantized["bounds"]["label_kl_mean"]
    assert verb(["rerank", str(bundle), TEXTS[0], *TEXTS, "--json"]) == 0
    scores = [row["score"] for row in json.loads(capsys.readouterr().out)["texts"]]
    assert len(scores) == len(TEXTS) and scores == sorted(scores, reverse=True)
