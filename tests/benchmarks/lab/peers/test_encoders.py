"""The comparison of encoders: its arms answer alike, texts have the length asked for, and bars are judged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.lab.peers import encoders
from edgepress.benchmarks.lab.peers.encoders import Arm, bars, cosines, in_turns, rows_of, sentences_of
from edgepress.export.api import export_bundle
from edgepress.runtime.api import EmbeddingModel, open_bundle
from edgepress.runtime.text.tokenizer import Tokenizer

FAKE = """
import json, sys, time
print(json.dumps({"versions": {"fake": "1"}}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    answer = {"seconds": 0.5}
    if job["vectors"]:
        answer["vectors"] = [[len(text), float(sys.argv[1])] for text in job["sentences"]]
    print(json.dumps(answer), flush=True)
"""


def test_our_worker_answers_as_the_runtime_does(pico_bert: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(pico_bert, checkpoint)
    modules = [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (checkpoint / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_mean_tokens": true}', encoding="utf-8"
    )
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", validate=False)
    command = [sys.executable, "-m", "edgepress.benchmarks.lab.peers.encoder_worker", str(bundle)]
    arm = Arm.start("edgepress", [*command, "--threads", "1"], 1)
    texts = ["a short text", "and one that is a little longer"]
    answer = arm.encode(texts, vectors=True)
    arm.stop()
    model = open_bundle(bundle, threads=1)
    assert isinstance(model, EmbeddingModel)
    np.testing.assert_allclose(answer["vectors"], model.encode(texts), rtol=1e-5, atol=1e-6)
    assert answer["seconds"] > 0
    assert set(arm.versions) == {"edgepress", "onnxruntime"}


def test_arms_take_turns_on_the_same_sentences() -> None:
    names = [encoders.REFERENCE, "edgepress W8A8"]
    arms = [Arm.start(name, [sys.executable, "-c", FAKE, str(i)], 1) for i, name in enumerate(names)]
    rates = in_turns(arms, ["a", "b"], rounds=3)
    assert rates == {name: [4.0] * 3 for name in names}
    same = cosines(arms, ["abc"])
    assert same[encoders.REFERENCE] == pytest.approx(1)
    assert same["edgepress W8A8"] == pytest.approx(3 / np.hypot(3, 1))
    for arm in arms:
        arm.stop()
        assert arm.child.returncode == 0


def test_an_arm_that_does_not_load_is_named() -> None:
    with pytest.raises(SystemExit, match="broken could not be loaded"):
        Arm.start("broken", [sys.executable, "-c", "pass"], 1)


def test_texts_have_the_length_asked_for(pico_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "texts_from", lambda *_args, **_options: ["one two three four five"] * 40)
    tokenizer = Tokenizer.open(pico_bert)
    found = sentences_of(tokenizer, 16, 5)
    lengths = [len(tokenizer.encode(text)) for text in found]
    assert len(found) == 5
    assert max(lengths) <= 16


def test_bars_compare_the_best_of_both_sides() -> None:
    rates = {(1, 16): {"edgepress fp32": [1.0], "edgepress W8A8": [31.0, 29.0], "peer a": [20.0]}}
    assert bars(rates) == ["1 t, length 16: edgepress W8A8 30 over peer a 20 = 1.50 (target 1.5: met)."]
    same = {"edgepress fp32": 1.0, "edgepress W8A8": 0.99, "peer a": 1.0}
    assert rows_of(rates, same)[1] == ["edgepress W8A8", "0.9900", "30"]


def test_the_peers_worker_needs_only_its_own_environment() -> None:
    path = Path(encoders.__file__).with_name("sentence_transformers_peer.py")
    done = subprocess.run([sys.executable, "-P", str(path), "--help"], check=True, capture_output=True)
    assert b"serve" in done.stdout
