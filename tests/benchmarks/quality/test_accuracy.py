"""Scoring: one-pass sums equal a calculation over all logits; broken models and other vocabularies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from edgepress.benchmarks.quality import token_damage
from edgepress.benchmarks.quality.accuracy import (
    score_across,
    score_windows,
    text_bytes,
)
from edgepress.benchmarks.quality.held_out_text import is_cut
from edgepress.benchmarks.quality.metrics import METRICS, metrics_of
from edgepress.benchmarks.quality.scores import Scores, log_softmax
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records.record import Subject as Record
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed, InputError
from edgepress.runtime.text.tokenizer import Tokenizer
from transformers import AutoModelForCausalLM

VOCAB = 31


class Letters:
    """A tokenizer in which id ``i`` is one letter of two bytes."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(0x400 + i) for i in ids)


class Fake:
    """A model whose logits are a fixed random table."""

    kind = "decoder"
    max_length = 512

    def __init__(self, seed: int, vocab: int = VOCAB) -> None:
        self.tokenizer: Any = Letters()
        self.runtime: dict[str, Any] = {"name": "fake"}
        self.table = np.random.default_rng(seed).normal(scale=3, size=(vocab, vocab)).astype(np.float32)
        self.seed, self.calls = seed, 0

    def logits(self, input_ids: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.table[input_ids]

    def describe(self) -> Record:
        return Record(
            name="fake",
            manifest_sha256=str(self.seed),
            kind=self.kind,
            format="hf",
            scheme="fp32",
            disk_bytes=1,
        )


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, size=(5, 40))


@pytest.mark.chain
def test_sums_equal_the_whole_calculation(windows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_damage, "CHUNK", 7)
    subject, original = Fake(1), Fake(2)
    scores = score_windows(subject, original, windows)
    mine = log_softmax(subject.table[windows[:, :-1]]).reshape(-1, VOCAB)
    theirs = log_softmax(original.table[windows[:, :-1]]).reshape(-1, VOCAB)
    targets = windows[:, 1:].ravel()
    nats = -mine[np.arange(len(targets)), targets]
    own = -theirs[np.arange(len(targets)), targets]
    assert scores["perplexity"].of_subject().value == pytest.approx(np.exp(nats.mean()))
    assert scores["perplexity"].of_original().value == pytest.approx(np.exp(own.mean()))
    assert scores["bits_per_byte"].of_subject().value == pytest.approx(nats.mean() / np.log(2) / 2)
    divergence = (np.exp(theirs) * (theirs - mine)).sum(1).mean()
    assert scores["kl"].of_subject().value == pytest.approx(divergence)
    agreement = (mine.argmax(1) == theirs.argmax(1)).mean()
    assert scores["top1_agreement"].of_subject().value == pytest.approx(agreement)
    assert set(scores) == set(metrics_of("tokens"))


def test_a_model_against_itself_runs_once(windows: np.ndarray) -> None:
    model = Fake(1)
    scores = score_windows(model, model, windows)
    assert model.calls == len(windows)
    assert scores["kl"].of_subject().value == 0
    assert scores["top1_agreement"].of_subject().value == 1
    assert scores["perplexity"].delta() == {"value": 0.0, "ci95": [0.0, 0.0], "unit": ""}


@pytest.mark.chain
def test_order_of_windows_does_not_matter(windows: np.ndarray) -> None:
    forward = score_windows(Fake(1), Fake(2), windows)
    backward = score_windows(Fake(1), Fake(2), windows[::-1])
    for name, scores in forward.items():
        assert scores.of_subject().value == pytest.approx(backward[name].of_subject().value)


def test_intervals_hold_the_value_and_samples_are_per_window(windows: np.ndarray) -> None:
    for scores in score_windows(Fake(1), Fake(2), windows).values():
        metric = scores.of_subject()
        assert metric.ci95 is not None and metric.value is not None
        assert metric.ci95[0] <= metric.value <= metric.ci95[1]
        assert metric.n == len(scores.samples()) == 5
        assert metric.min == pytest.approx(min(scores.samples()))
        assert metric.sd == pytest.approx(np.std(scores.samples(), ddof=1))


@pytest.mark.chain
def test_paired_difference_is_tighter_than_the_two_apart() -> None:
    hardness = np.random.default_rng(1).uniform(1, 5, size=40)
    rows = np.stack([hardness * 100, np.full(40, 100.0), np.full(40, 300.0)], axis=1)
    worse = rows * [1.01, 1, 1]
    scores = Scores(METRICS["perplexity"], worse, rows)
    low, high = scores.delta()["ci95"]
    alone = scores.of_subject().ci95
    assert alone is not None
    assert 0 < low < scores.delta()["value"] < high
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_bytes_are_those_of_the_predicted_text() -> None:
    assert text_bytes(Fake(1).tokenizer, np.arange(9)) == 16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_named(windows: np.ndarray, value: float) -> None:
    broken = Fake(1)
    broken.table[windows[2, 5], 3] = value
    with pytest.raises(GateFailed, match="the compressed model gives logits that are not finite in window"):
        score_windows(broken, Fake(2), windows)
    with pytest.raises(GateFailed, match="the original gives"):
        score_windows(Fake(2), broken, windows)


def test_vocabularies_must_agree(windows: np.ndarray) -> None:
    with pytest.raises(InputError, match="vocabularies differ in size: 40 against 31"):
        score_windows(Fake(1, vocab=40), Fake(2), windows)


TEXT = "the river ran under old stone bridges"


@pytest.fixture
def cut(pico_llama: Path, tmp_path: Path) -> Path:
    corpus, recipe = tmp_path / "corpus.txt", tmp_path / "recipe.yaml"
    corpus.write_text(TEXT, encoding="utf-8")
    recipe.write_text(yaml.safe_dump({"passes": [{"pass": "vocabulary", "corpus": str(corpus)}]}))
    return compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "cut")


@pytest.mark.chain
def test_bits_per_byte_equal_a_calculation_by_hand(pico_llama: Path, cut: Path) -> None:
    ids = Tokenizer.open(pico_llama).encode(TEXT)
    scores = score_across(open_subject(cut), open_subject(pico_llama), np.array([ids]))
    own = torch.tensor(Tokenizer.open(cut).encode(TEXT))
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(cut)(own[None]).logits[0, :-1].double()
    nats = torch.nn.functional.cross_entropy(logits, own[1:], reduction="sum")
    size = len(TEXT.encode()) - len(Tokenizer.open(cut).decode(own[:1].tolist()).encode())
    found = scores["bits_per_byte"].of_subject().value
    assert found == pytest.approx(float(nats) / math.log(2) / size, rel=1e-5)


@pytest.mark.chain
def test_only_a_part_of_the_tokens_is_a_cut(pico_llama: Path, pico_bert: Path, cut: Path) -> None:
    original, less, other = (open_subject(path) for path in (pico_llama, cut, pico_bert))
    assert is_cut(less, original)
    assert not is_cut(original, original) and not is_cut(other, original) and not is_cut(original, less)


@pytest.mark.chain
def test_validate_measures_what_compares(pico_llama: Path, pico_text: Path, cut: Path) -> None:
    line = validate_bundle(cut, pico_llama, text=pico_text, windows=2, length=32)
    assert set(line.metrics) == {"bits_per_byte", "loops", "repetition", "distinct_2"}
