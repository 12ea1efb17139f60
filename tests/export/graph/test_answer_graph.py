"""Encoders that find the answer to a question, and classifiers that give a text several labels, against
transformers: the graph, the whole bundle, its verb, and what is measured.
"""

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
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.classify import ClassifierModel
from edgepress.runtime.engine.tag import TaggerModel
from edgepress.runtime.session.session import open_session
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

pytestmark = pytest.mark.chain

TEXTS = ["the river ran", "merchants counted copper coins under old stone bridges", "tides"]
LABELS = ("calm", "old", "wet")
Make = Callable[..., Path]


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "distilbert", "electra", "mpnet", "albert", "modernbert"]
)
def test_logits_are_those_of_transformers(
    model_type: str, make_encoder: Make, export_graph: Any, tmp_path: Path
) -> None:
    path = make_encoder(tmp_path / "model", model_type, answers=True)
    ids = np.random.default_rng(2).integers(5, 100, (2, 33), dtype=np.int64)
    mask = (np.arange(33) < np.array([[33], [20]])).astype(np.int64)
    feeds = {"input_ids": ids * mask, "attention_mask": mask}
    model = AutoModelForQuestionAnswering.from_pretrained(path).eval()
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    session = open_session(export_graph(path).path, threads=1)
    if any(node.name == "token_type_ids" for node in session.get_inputs()):
        feeds["token_type_ids"] = np.zeros_like(ids)
    found = session.run(["logits"], feeds)[0]
    for part, theirs in enumerate((want.start_logits, want.end_logits)):
        assert np.abs(found[..., part] - theirs.numpy())[mask.astype(bool)].max() < 2e-5


@pytest.fixture(scope="module")
def reader(make_encoder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that finds answers. Read only."""
    return make_encoder(tmp_path_factory.mktemp("reader") / "bert", answers=True)


def test_answers_from_end_to_end(
    reader: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_bundle(
        compress_model(str(reader), scheme="W8A8", output=tmp_path / "c"), output=tmp_path / "b"
    )
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["encoder"]["labels"], manifest["encoder"]["labelled"]) == (["start", "end"], "span")
    quantized = manifest["parity"]["quantized"]
    assert 0 < quantized["label_kl_mean"] <= quantized["bounds"]["label_kl_mean"]
    card = (bundle / "README.md").read_text()
    assert "question-answering" in card and '--question "a question"' in card
    assert verb(["tag", str(bundle), *TEXTS, "--question", "stone coins", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["text"] for row in said["texts"]] == TEXTS
    for row in said["texts"]:
        (span,) = row["spans"]
        assert row["text"][span["start"] : span["end"]] == span["text"] != ""
    assert verb(["tag", str(bundle), *TEXTS]) == 2
    assert "needs a question" in capsys.readouterr().err
    line = validate_bundle(bundle, against=str(reader), text=str(pico_text), sentences=8)
    assert 0 < line.metrics["label_kl"].value < 0.1 and line.metrics["label_agreement"].value > 0.5


def test_the_answer_is_the_likeliest_span_of_the_text(reader: Path, tmp_path: Path) -> None:
    model = open_bundle(export_bundle(reader, output=tmp_path / "b", validate=False), threads=1)
    assert isinstance(model, TaggerModel)
    theirs = AutoModelForQuestionAnswering.from_pretrained(reader).eval()
    tokenizer, question = AutoTokenizer.from_pretrained(reader), "old bridges"
    for text, (span,) in zip(TEXTS, model.answer(question, TEXTS), strict=True):
        pair = tokenizer(question, text, return_tensors="pt", return_token_type_ids=True)
        with torch.no_grad():
            found = theirs(**pair)
        inside = [number for number, part in enumerate(pair.sequence_ids()) if part == 1]
        first, last = (logits[0, inside].softmax(-1) for logits in (found.start_logits, found.end_logits))
        chance, begin, end = max(
            (float(first[one] * last[other]), one, other)
            for one in range(len(inside))
            for other in range(one, len(inside))
        )
        places = [pair.token_to_chars(inside[at]) for at in (begin, end)]
        assert (span.start, span.end) == (places[0].start, places[1].end)
        assert span.probability == pytest.approx(chance, abs=1e-5)
    with pytest.raises(InputError, match="needs a question"):
        model.tag(TEXTS)


def test_a_text_may_have_several_labels(
    make_encoder: Make, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_encoder(tmp_path / "m", labels=LABELS, problem_type="multi_label_classification")
    bundle = export_bundle(
        compress_model(str(path), scheme="W8A8", output=tmp_path / "c"), output=tmp_path / "b"
    )
    assert json.loads((bundle / "manifest.json").read_text())["encoder"]["several"]
    plain = open_bundle(export_bundle(path, output=tmp_path / "p", validate=False), threads=1)
    assert isinstance(plain, ClassifierModel)
    theirs, tokenizer = AutoModelForSequenceClassification.from_pretrained(path).eval(), plain.tokenizer
    for text, found in zip(TEXTS, plain.classify(TEXTS), strict=True):
        with torch.no_grad():
            want = theirs(torch.tensor([tokenizer.encode(text)])).logits[0].sigmoid().tolist()
        assert list(found.probabilities.values()) == pytest.approx(want, abs=1e-5)
        assert found.labels == tuple(label for label, share in zip(LABELS, want, strict=True) if share >= 0.5)
    assert verb(["classify", str(bundle), *TEXTS, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["texts"]
    assert all(set(row["labels"]) <= set(LABELS) for row in rows)
    line = validate_bundle(bundle, against=str(path), text=str(pico_text), sentences=8)
    assert set(line.metrics) == {"label_kl", "label_agreement"}
    assert 0 < line.metrics["label_kl"].value < 0.1
