"""Heads of encoders: a classifier of texts as data, another head by name, and none where none is used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.anatomy import Classifier
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

LABELS = ("bad", "fair", "good")
Make = Callable[..., Path]
EXPECTED = {
    "bert": Classifier("bert.pooler.dense", "tanh", "classifier", LABELS),
    "roberta": Classifier("classifier.dense", "tanh", "classifier.out_proj", LABELS),
    "distilbert": Classifier("pre_classifier", "relu", "classifier", LABELS),
}


@pytest.fixture(scope="module")
def classifier(make_encoder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with three labels. Read only."""
    return make_encoder(tmp_path_factory.mktemp("head") / "bert", labels=LABELS)


def edit_config(path: Path, **changes: Any) -> Path:
    """Change the ``config.json`` in ``path``."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return path


@pytest.mark.parametrize("model_type", EXPECTED)
def test_a_classifier_of_texts(model_type: str, make_encoder: Make, tmp_path: Path) -> None:
    anatomy = WeightSource.open(make_encoder(tmp_path, model_type, labels=LABELS)).anatomy
    assert anatomy.classifier == EXPECTED[model_type]
    assert anatomy.other_head is None
    assert (anatomy.without_head().classifier, anatomy.kind) == (None, "encoder")


def test_labels_without_names_have_those_of_transformers(make_encoder: Make, tmp_path: Path) -> None:
    path = make_encoder(tmp_path, labels=("LABEL_0", "LABEL_1"))
    assert "id2label" not in json.loads((path / "config.json").read_text())
    head = WeightSource.open(path).anatomy.classifier
    assert head is not None and head.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("named", [{"0": "bad"}, {"0": "bad", "1": "fair", "3": "good"}, ["bad"]])
def test_labels_that_do_not_fit(named: object, classifier: Path) -> None:
    source = WeightSource.open(classifier)
    with pytest.raises(CheckpointError, match="3 labels"):
        anatomy_of(source.reader.config | {"id2label": named}, source.shapes)


def test_labels_of_one_name(classifier: Path) -> None:
    source = WeightSource.open(classifier)
    named = {"0": "bad", "1": "good", "2": "good"}
    with pytest.raises(CheckpointError, match="one name"):
        anatomy_of(source.reader.config | {"id2label": named}, source.shapes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
        ({"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        ({"architectures": []}, "tensor 'classifier"),
    ],
)
def test_other_heads_are_named(changes: dict[str, Any], named: str, classifier: Path) -> None:
    source = WeightSource.open(classifier)
    anatomy = anatomy_of(source.reader.config | changes, source.shapes)
    assert anatomy.classifier is None
    assert named in str(anatomy.other_head)


def test_several_labels_of_a_text_and_spans(classifier: Path) -> None:
    source = WeightSource.open(classifier)
    several = anatomy_of(source.reader.config | {"problem_type": "multi_label_classification"}, source.shapes)
    assert several.classifier is not None and several.classifier.several
    config = source.reader.config | {"architectures": ["BertForQuestionAnswering"]}
    shapes: dict[str, tuple[int, ...]] = {
        **source.shapes,
        "qa_outputs.weight": (2, 64),
        "qa_outputs.bias": (2,),
    }
    head = anatomy_of(config, shapes).classifier
    assert head is not None and (head.labelled, head.labels, head.dense) == ("span", ("start", "end"), None)
    assert "3 outputs" in str(
        anatomy_of(config, shapes | {"qa_outputs.weight": (3, 64), "qa_outputs.bias": (3,)}).other_head
    )


def test_a_reranker_and_a_head_that_is_not_there(classifier: Path) -> None:
    source = WeightSource.open(classifier)
    shapes: dict[str, tuple[int, ...]] = dict(source.shapes)
    shapes |= {"classifier.weight": (1, 64), "classifier.bias": (1,)}
    with pytest.raises(CheckpointError, match="id2label must name the 1 labels"):
        anatomy_of(source.reader.config, shapes)
    one = source.reader.config | {"id2label": {"0": "LABEL_0"}}
    head = anatomy_of(one, shapes).classifier
    assert head is not None and head.labels == ("LABEL_0",)
    assert anatomy_of(one | {"problem_type": "regression"}, shapes).classifier == head
    numbers = anatomy_of(source.reader.config | {"problem_type": "regression"}, source.shapes)
    assert "numbers" in str(numbers.other_head)
    del shapes["classifier.weight"]
    assert "lacks" in str(anatomy_of(source.reader.config, shapes).other_head)


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
def test_encoders_alone(architecture: str, classifier: Path) -> None:
    source = WeightSource.open(classifier)
    anatomy = anatomy_of(source.reader.config | {"architectures": [architecture]}, source.shapes)
    assert (anatomy.classifier, anatomy.other_head) == (None, None)


def test_sentence_encoders_use_no_head(make_encoder: Make, tmp_path: Path) -> None:
    path = make_encoder(tmp_path, labels=LABELS)
    (path / "modules.json").write_text("[]")
    assert WeightSource.open(path).anatomy.classifier is None
    edit_config(path, architectures=["BertForQuestionAnswering"])
    assert WeightSource.open(path).anatomy.other_head is None
