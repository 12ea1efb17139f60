"""``fit`` on encoders and classifiers: budgets of what they are judged by hold as measured."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.lab.same_bytes.pico_embedders import save_embedder
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.entry import run
from edgepress.fit import search as search_module
from edgepress.runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``edgepress fit`` of a model on a text, rounded alone, into ``tmp_path / "o"``."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])

    def call(model: Path, text: Path, *arguments: str) -> int:
        given = ["--text", str(text), "--samples", "16", "--length", "32", "--threads", "1", "--json"]
        return run(["fit", str(model), *given, "-o", str(tmp_path / "o"), *arguments])

    return call


def pooled(source: Path, target: Path) -> Path:
    """A copy of an encoder that says how it pools."""
    shutil.copytree(source, target)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for path, kind in kinds]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return target


def found_by(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("table", "few_word_pairs")
def test_an_encoder(
    fit: Callable[..., int],
    pico_bert: Path,
    pico_text: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    model = pooled(pico_bert, tmp_path / "m")
    assert fit(pico_bert, pico_text, "--max-disk", "1GB") == 2  # before anything is measured
    assert "says how to pool" in capsys.readouterr().out
    assert fit(model, pico_text, "--max-disk", "1GB", "--dry-run") == 0
    bound = round(1.2 * found_by(capsys)["smallest"])
    budgets = ["--max-disk", f"{bound}B", "--min-cosine", "0.9", "--min-spearman", "0.5"]
    budgets += ["--min-sentences", "1", "--max-energy", "9J@raspberry-pi-5"]
    assert fit(model, pico_text, *budgets) == 0
    found = found_by(capsys)
    assert found["measured"]["disk"] <= bound
    assert found["judged"] == found["objective"] == "cosine"
    for values in (found["measured"], found["held_out"]):
        assert 0.9 <= values["cosine"] <= 1 and 0.5 <= values["Spearman"] <= 1
    rate = found["measured"]["sentences on here"]
    assert rate >= 1 and 1 / rate < found["measured"]["energy on here"] <= 9
    assert any("modelled at" in one for one in found["budgets"])
    assert Bundle.open(tmp_path / "o" / "bundle").kind == "encoder"
    assert {one["scheme"] for one in found["units"]} and found["prices"]


@pytest.mark.slow
def test_a_decoder_that_embeds(
    fit: Callable[..., int], pico_text: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = save_embedder(tmp_path / "m", "qwen3", {"max_position_embeddings": 160})
    assert fit(model, pico_text, "--max-disk", "1GB", "--dry-run") == 0
    bound = round(1.2 * found_by(capsys)["smallest"])
    assert fit(model, pico_text, "--max-disk", f"{bound}B", "--min-cosine", "0.8") == 0
    found = found_by(capsys)
    assert found["measured"]["disk"] <= bound and found["held_out"]["cosine"] >= 0.8
    assert Bundle.open(tmp_path / "o" / "bundle").encoder.pooling == "last"


def test_the_smallest_classifier_of_an_accuracy(
    fit: Callable[..., int],
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    model = make_encoder(tmp_path / "m", labels=("bad", "good"))
    texts = pico_text.read_text().split("\n\n")
    labels = np.argmax(open_subject(model, threads=1).label_logits(texts), 1)
    rows = [
        json.dumps({"text": text, "label": ("bad", "good")[place]})
        for text, place in zip(texts, labels, strict=True)
    ]
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("\n".join(rows))
    assert fit(model, labelled, "--min-accuracy", "60 %", "--max-kl", "0.5") == 0
    found = found_by(capsys)
    assert (found["judged"], found["objective"]) == ("KL", "disk")
    assert found["measured"]["accuracy"] >= 0.6 <= found["held_out"]["accuracy"]
    assert Bundle.open(tmp_path / "o" / "bundle").encoder.labels == ["bad", "good"]
    assert fit(model, pico_text, "--min-accuracy", "0.6", "--overwrite") == 2
    assert "no labels that this model gives" in capsys.readouterr().out
    assert fit(model, pico_text, "--min-decode", "6", "--overwrite") == 2
