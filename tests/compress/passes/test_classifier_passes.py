"""Passes on a classifier of texts: the head stays with what is cut, and its labels are learned from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import EdgepressError, TrainingError
from edgepress.export.api import export_bundle
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.classify import ClassifierModel
from safetensors.torch import load_file

pytestmark = pytest.mark.chain


LABELS = ("bad", "fair", "good")
HEAD = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
LEARN: dict[str, Any] = {
    "batch_tokens": 64,
    "piece_tokens": 64,
    "learning_rate": 0.01,
    "precision": "float32",
}
CUT = {"pass": "layers", "keep": 0.6}


@pytest.fixture(scope="module")
def classifier(make_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three blocks with three labels. Read only."""
    folder = tmp_path_factory.mktemp("head") / "bert"
    return make_encoder(folder, labels=LABELS, num_hidden_layers=3)


def compressed(model: Path, text: Path, folder: Path, *passes: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "test", "passes": list(passes), "embedding": None}))
    return compress_model(
        str(model), recipe=recipe, calibration=str(text), samples=24, length=32, output=folder / "out"
    )


@pytest.mark.parametrize(
    "step",
    [
        CUT,
        {"pass": "ffn", "keep": 0.8},
        {"pass": "heads", "keep": 0.8},
        {"pass": "narrow", "keep": 0.8},
        {"pass": "gptq", "scheme": "W8A16-g32"},
        {"pass": "smoothquant"},
    ],
    ids=lambda step: step["pass"],
)
def test_the_head_stays(step: dict[str, Any], classifier: Path, pico_text: Path, tmp_path: Path) -> None:
    out = compressed(classifier, pico_text, tmp_path, step)
    assert WeightSource.open(out).anatomy.classifier == WeightSource.open(classifier).anatomy.classifier
    before, after = (load_file(path / "model.safetensors") for path in (classifier, out))
    for name in HEAD:
        assert torch.equal(before[name], after[name])
    model = open_bundle(export_bundle(out, output=tmp_path / "bundle"), threads=1)
    assert isinstance(model, ClassifierModel) and model.labels == LABELS


def test_the_hidden_size_is_not_cut(classifier: Path, pico_text: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgepressError, match="hidden size of a bert"):
        compressed(classifier, pico_text, tmp_path, {"pass": "width", "keep": 0.5})


@pytest.mark.parametrize(
    "step",
    [
        {"pass": "distill"},
        pytest.param(
            {"pass": "distill", "losses": {"label_kl": 1.0}, "temperature": 2.0}, marks=pytest.mark.slow
        ),
        {"pass": "distill", "losses": {"label_kl": 1.0, "hidden": 0.1}, "cache": False},
        {"pass": "recover"},
    ],
)
def test_a_classifier_learns(step: dict[str, Any], classifier: Path, pico_text: Path, tmp_path: Path) -> None:
    out = compressed(classifier, pico_text, tmp_path, CUT, {**step, **LEARN})
    details = json.loads((out / "edgepress.json").read_text())["steps"][-1]["details"]
    losses = [loss for _, loss in details["held_out"]]
    assert "label_kl" in details["measure"]
    # Over six draws of the weights the ratio is 0.05 to 0.15, with a standard deviation of 0.07 at most.
    assert min(losses) < 0.9 * losses[0]
    after, before = load_file(out / "model.safetensors"), load_file(classifier / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in HEAD)


@pytest.mark.parametrize("name", ["tune", "qat"])
def test_codes_and_scales_learn_from_labels(
    name: str, classifier: Path, pico_text: Path, tmp_path: Path
) -> None:
    scheme = "W3A16-g32"
    steps = [{"pass": "rtn", "scheme": scheme}] if name == "tune" else []
    more = {} if name == "tune" else {"scheme": scheme}
    learn = {"pass": name, **more, **LEARN, "learning_rate": 0.003}  # at 0.01 some draws never come nearer
    out = compressed(classifier, pico_text, tmp_path, *steps, learn)
    details = json.loads((out / "edgepress.json").read_text())["steps"][-1]["details"]
    losses = [loss for _, loss in details["held_out"]]
    assert details["measure"] == "label_kl + states"
    assert min(losses) < losses[0]


def test_a_student_of_its_own_shape(classifier: Path, pico_text: Path, tmp_path: Path) -> None:
    config = json.loads((classifier / "config.json").read_text()) | {"num_hidden_layers": 1}
    shape = tmp_path / "config.json"
    shape.write_text(json.dumps(config))
    step = {"pass": "distill", "student": str(shape), "losses": {"label_kl": 1.0}, **LEARN}
    out = compressed(classifier, pico_text, tmp_path / "run", step)
    anatomy = WeightSource.open(out).anatomy
    assert (len(anatomy.blocks), anatomy.classifier is not None) == (1, True)
    config["id2label"] = {"0": "no", "1": "yes"}
    config["label2id"] = {"no": 0, "yes": 1}
    shape.write_text(json.dumps(config))
    with pytest.raises(TrainingError, match="same labels"):
        compressed(classifier, pico_text, tmp_path / "other", step)


def test_an_encoder_has_no_labels_to_learn_from(pico_bert: Path, pico_text: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="same labels"):
        compressed(pico_bert, pico_text, tmp_path, {"pass": "distill", "losses": {"label_kl": 1.0}, **LEARN})


def test_a_classifier_learns_what_rows_say_of_themselves(
    classifier: Path, pico_text: Path, tmp_path: Path
) -> None:
    """Labels that only the rows know: the teacher is no better than chance at them."""
    rows = [
        {"text": f"{word} {number} thing", "label": label}
        for number in range(20)
        for word, label in (("one", "bad"), ("two", "fair"), ("three", 2))
    ]
    text = tmp_path / "rows.jsonl"
    text.write_text("\n".join(map(json.dumps, rows)))
    step = {"pass": "distill", "losses": {"label_cross_entropy": 1.0}, "epochs": 8, **LEARN}
    out = compressed(classifier, text, tmp_path / "run", step)
    details = json.loads((out / "edgepress.json").read_text())["steps"][-1]["details"]
    assert details["measure"] == "label_cross_entropy"
    # Over six draws of the weights the ratio is 0.14, with a standard deviation of 0.08.
    assert min(loss for _, loss in details["held_out"]) < 0.9 * details["held_out"][0][1]
    with pytest.raises(TrainingError, match="say what they are"):
        compressed(classifier, pico_text, tmp_path / "other", step)
