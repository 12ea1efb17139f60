"""The comparison of encoders: models that stay loaded, texts of the wanted length, and bars."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.lab.peers import encoder_speed
from edgepress.benchmarks.lab.peers.children import work
from edgepress.benchmarks.lab.peers.encoder_speed import (
    EncoderProcess,
    bars,
    cosines,
    interleaved,
    rows_of,
    sentences_of,
)
from edgepress.benchmarks.lab.peers.encoders import edgepress_bundle
from edgepress.benchmarks.lab.peers.workspace import Workspace
from edgepress.runtime.api import EmbeddingModel, open_bundle
from edgepress.runtime.text.tokenizer import Tokenizer

pytestmark = pytest.mark.chain


FAKE = """
import json, sys
for line in sys.stdin:
    job = json.loads(line)
    reply = {"seconds": 0.5}
    if job["vectors"]:
        reply["vectors"] = [[len(text), float(sys.argv[1])] for text in job["sentences"]]
    print(json.dumps(reply), flush=True)
"""


def test_our_worker_replies_as_the_runtime_does(pico_bert: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(pico_bert, checkpoint)
    modules = [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (checkpoint / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_mean_tokens": true}', encoding="utf-8"
    )
    workspace, peer, made = Workspace(tmp_path), "edgepress_bundle", tmp_path / "made"
    job = {"do": "convert", "variant": "fp32", "checkpoint": str(checkpoint), "artifact": str(made)}
    done = work(workspace, peer, edgepress_bundle, {**job, "calibration": ""}, timeout=300)
    assert done.error == ""
    ours = EncoderProcess.start(workspace, peer, edgepress_bundle, "fp32", made, 1)
    texts = ["a short text", "and one that is a little longer"]
    reply = ours.encode(texts, vectors=True)
    ours.stop()
    model = open_bundle(made / "fp32" / "bundle", threads=1)
    assert isinstance(model, EmbeddingModel)
    np.testing.assert_allclose(reply["vectors"], model.encode(texts), rtol=1e-5, atol=1e-6)
    assert reply["seconds"] > 0
    assert ours.name == "edgepress fp32"
    assert set(ours.versions) == {"edgepress", "onnxruntime"}


def fake(name: str, code: str, *arguments: str) -> EncoderProcess:
    """A model that is loaded, of any code."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return EncoderProcess(name, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True), {})


def test_models_are_interleaved_on_the_same_sentences() -> None:
    names = [encoder_speed.REFERENCE, "edgepress W8A8"]
    running = [fake(name, FAKE, str(index)) for index, name in enumerate(names)]
    rates = interleaved(running, ["a", "b"], rounds=3)
    assert rates == {name: [4.0] * 3 for name in names}
    same = cosines(running, ["abc"])
    assert same[encoder_speed.REFERENCE] == pytest.approx(1)
    assert same["edgepress W8A8"] == pytest.approx(3 / np.hypot(3, 1))
    for one in running:
        one.stop()
        assert one.child.returncode == 0


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="edgepress fp32 could not be loaded"):
        EncoderProcess.start(Workspace(tmp_path), "edgepress_bundle", edgepress_bundle, "fp32", tmp_path, 1)


def test_a_model_that_ends_is_named() -> None:
    with pytest.raises(SystemExit, match="broken ended instead of replying"):
        fake("broken", "pass").encode(["a"])


def test_texts_have_the_length_asked_for(pico_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        encoder_speed, "texts_from", lambda *_args, **_options: ["one two three four five"] * 40
    )
    tokenizer = Tokenizer.open(pico_bert)
    found = sentences_of(tokenizer, 16, 5)
    lengths = [len(tokenizer.encode(text)) for text in found]
    assert len(found) == 5
    assert max(lengths) <= 16


def test_bars_compare_ours_with_each_peer_that_has_a_target() -> None:
    found = {"edgepress W8A8": [60.0, 50.0, 70.0], "OpenVINO int8": [50.0], encoder_speed.REFERENCE: [15.0]}
    assert bars({(1, 16): found}) == [
        "1 t, length 16: edgepress W8A8 60 over OpenVINO int8 50 = 1.20 (target 1.2: met).",
        "1 t, length 16: edgepress W8A8 60 over sentence-transformers torch 15 = 4.00 (target 5: missed).",
    ]
    same = {"edgepress W8A8": 0.99, "OpenVINO int8": 0.99, encoder_speed.REFERENCE: 1.0}
    assert rows_of({(1, 16): found}, same)[0] == ["edgepress W8A8", "0.9900", "60"]
