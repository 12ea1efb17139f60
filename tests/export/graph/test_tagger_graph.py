"""Classifiers of tokens against transformers: families, the whole bundle, its spans, and what is measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.cli.entry import run as verb
from edgepress.compress.api import compress_model
from edgepress.errors import InputError, TrainingError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.classify import ClassifierModel
from edgepress.runtime.engine.tag import TaggerModel
from edgepress.runtime.session.session import open_session
from transformers import AutoModelForTokenClassification, AutoTokenizer

pytestmark = pytest.mark.chain

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = ["the river ran", "merchants counted copper coins under old stone bridges", "tides"]
TOLERANCE = 2e-5
Make = Callable[..., Path]


@pytest.mark.parametrize(
    "model_type",
    [
        *("bert", "roberta", "distilbert", "electra", "mpnet", "albert", "camembert", "xlm-roberta"),
        *("modernbert", "eurobert", "nomic_bert", "gte", "deberta-v2"),
    ],
)
@pytest.mark.parametrize("form", [CPU, OWN])
def test_logits_are_those_of_transformers(
    model_type: str, form: ProviderForm, make_encoder: Make, export_graph: Any, tmp_path: Path
) -> None:
    path = make_encoder(tmp_path / "model", model_type, labels=LABELS, by_token=True)
    ids = np.random.default_rng(2).integers(5, 100, (3, 33), dtype=np.int64)
    mask = (np.arange(33) < np.array([[33], [20], [1]])).astype(np.int64)
    feeds = {"input_ids": ids * mask, "attention_mask": mask}
    model = AutoModelForTokenClassification.from_pretrained(path).eval()
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(value) for name, value in feeds.items()}).logits.numpy()
    session = open_session(export_graph(path, form=form).path, threads=1)
    if any(node.name == "token_type_ids" for node in session.get_inputs()):
        feeds["token_type_ids"] = np.zeros_like(ids)
    found = session.run(["logits"], feeds)[0]
    assert found.shape == (3, 33, len(LABELS))
    assert np.abs(found - want)[mask.astype(bool)].max() < TOLERANCE


@pytest.fixture(scope="module")
def tagger(make_encoder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that labels tokens. Read only."""
    return make_encoder(tmp_path_factory.mktemp("tagger") / "bert", labels=LABELS, by_token=True)


@pytest.fixture(scope="module")
def compressed(tagger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with integer products. Read only."""
    return compress_model(str(tagger), scheme="W8A8", output=tmp_path_factory.mktemp("ckpt") / "w8a8")


@pytest.fixture(scope="module")
def bundle(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That as a bundle with its proof. Read only."""
    return export_bundle(compressed, output=tmp_path_factory.mktemp("bundle") / "b")


def test_words_have_the_label_of_their_first_token(tagger: Path, tmp_path: Path) -> None:
    model = open_bundle(export_bundle(tagger, output=tmp_path / "b"), threads=1)
    assert isinstance(model, TaggerModel)
    theirs = AutoModelForTokenClassification.from_pretrained(tagger).eval()
    split = AutoTokenizer.from_pretrained(tagger)(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        chosen = theirs(**split).logits[0].argmax(-1).tolist()
    words = split.word_ids()
    wanted = []
    for token, word in enumerate(words):
        label = LABELS[chosen[token]]
        if word is not None and words[token - 1] != word and label != "O":
            wanted.append((*split.word_to_chars(word), label.partition("-")[2]))
    found = model.tag(TEXTS)
    assert len(found) == 3 and found[1] and found == model.tag(TEXTS, batch_size=1)
    for span in found[1]:
        assert TEXTS[1][span.start : span.end] == span.text and 0 < span.probability <= 1
        inside = [label for start, end, label in wanted if span.start <= start and end <= span.end]
        assert inside and set(inside) == {span.label}
    assert sum(len(span.text.split()) for span in found[1]) == len(wanted)


def test_a_bundle_from_end_to_end(bundle: Path, tagger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["encoder"]["labels"], manifest["encoder"]["labelled"]) == (list(LABELS), "token")
    quantized = manifest["parity"]["quantized"]
    assert 0 < quantized["label_kl_mean"] <= quantized["bounds"]["label_kl_mean"]
    reference = AutoModelForTokenClassification.from_pretrained(tagger)
    assert manifest["weights"]["params"] == sum(item.numel() for item in reference.parameters())
    card = (bundle / "README.md").read_text()
    assert "token-classification" in card and 'tag . "a sentence"' in card
    assert verb(["tag", str(bundle), *TEXTS, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["labels"] == list(LABELS) and [row["text"] for row in said["texts"]] == TEXTS
    assert verb(["classify", str(bundle), *TEXTS]) == 2
    assert "edgepress tag" in capsys.readouterr().err


def test_who_labels_texts_labels_no_tokens(make_encoder: Make, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgepress tag"):
        ClassifierModel(Bundle.open(bundle), threads=1).classify(TEXTS)
    model = make_encoder(tmp_path / "model", labels=("bad", "good"))
    of_texts = export_bundle(model, output=tmp_path / "b", validate=False)
    with pytest.raises(InputError, match="edgepress classify"):
        TaggerModel(Bundle.open(of_texts), threads=1).tag(TEXTS)


def test_labels_of_tokens_are_compared_text_by_text(
    bundle: Path, compressed: Path, tagger: Path, pico_text: Path
) -> None:
    for subject in (bundle, compressed):
        line = validate_bundle(subject, against=str(tagger), text=str(pico_text), sentences=8)
        assert 0 < line.metrics["label_kl"].value < 0.1 and line.metrics["label_agreement"].value > 0.8
    with pytest.raises(InputError, match="labels tokens"):
        validate_bundle(bundle, against=str(tagger), text=str(pico_text), sentences=8, slices=["all"])


def test_it_is_distilled_by_its_states(tagger: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    recipe.write_text("passes: [{pass: layers, keep: 0.5}, {pass: distill, epochs: 1}]")
    out = compress_model(str(tagger), recipe=str(recipe), output=tmp_path / "o", **options)
    assert AutoModelForTokenClassification.from_pretrained(out).config.num_hidden_layers == 1
    recipe.write_text("passes: [{pass: distill, epochs: 1, losses: {label_kl: 1.0}}]")
    with pytest.raises(TrainingError, match="classifiers of texts"):
        compress_model(str(tagger), recipe=str(recipe), output=tmp_path / "p", **options)
