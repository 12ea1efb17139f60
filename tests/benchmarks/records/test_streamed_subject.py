"""A decoder read block by block gives the logits of the one in memory, and is taken when memory is short."""

from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records import streamed_subject
from edgepress.benchmarks.records.checkpoint_subject import CheckpointSubject
from edgepress.benchmarks.records.streamed_subject import StreamedSubject
from edgepress.benchmarks.records.subjects import OpenModel, open_subject
from edgepress.compress.api import compress_model

pytestmark = pytest.mark.chain


@pytest.fixture(params=["float", "W4A16-g16", "W8A8"])
def checkpoint(request: pytest.FixtureRequest, pico_llama: Path, tmp_path: Path) -> Path:
    if request.param == "float":
        return pico_llama
    compress_model(str(pico_llama), scheme=request.param, output=tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_subject, "free_memory", lambda: 1000)


def opened(path: Path) -> OpenModel:
    return open_subject(path, threads=1)


def test_the_logits_are_those_of_the_model_in_memory(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(checkpoint)
    assert isinstance(whole, CheckpointSubject)
    monkeypatch.setattr(streamed_subject, "free_memory", lambda: 1000)
    streamed = opened(checkpoint)
    assert isinstance(streamed, StreamedSubject)
    ids = np.random.default_rng(0).integers(5, 60, size=(3, 20))
    streamed.read_ahead(ids[:2])
    for row in ids:  # the last was not told of
        np.testing.assert_allclose(streamed.logits(row[None]), whole.logits(row[None]), atol=2e-5)
    assert streamed.greedy(["a"], 4) == []
    assert streamed.describe() == whole.describe()


def test_windows_that_were_told_of_are_not_read_again(
    pico_llama: Path, short_of_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(pico_llama)
    ids = np.random.default_rng(0).integers(5, 60, size=(4, 12))
    model.read_ahead(ids)
    monkeypatch.setattr(streamed_subject, "last_states", None)
    assert model.logits(ids).shape[:2] == (4, 12)


def test_validation_against_a_model_larger_than_memory(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress_model(str(pico_llama), scheme="W4A16-g16", output=tmp_path / "small")
    arguments = {"text": pico_text, "windows": 3, "length": 16, "threads": 1}
    whole = validate_bundle(tmp_path / "small", pico_llama, **arguments)
    monkeypatch.setattr(streamed_subject, "_SHARE", 1e-9)
    streamed = validate_bundle(tmp_path / "small", pico_llama, **arguments)
    assert streamed.runtime["streamed"] and "loops" not in streamed.metrics
    for name in ("kl", "perplexity", "top1_agreement"):
        assert streamed.metrics[name].value == pytest.approx(whole.metrics[name].value, rel=1e-4)
