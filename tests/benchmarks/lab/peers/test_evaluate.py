"""The evaluation of quantizers: recorded logits give what the model itself gives, and are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.lab.peers import evaluate
from edgepress.benchmarks.quality.accuracy import score_windows

VOCAB, WINDOWS, LENGTH = 23, 3, 9


class Table:
    """A model whose logits are rows of a random table."""

    def __init__(self, seed: int) -> None:
        self.tokenizer: Any = self
        self.table = np.random.default_rng(seed).normal(size=(VOCAB, VOCAB)).astype(np.float32)
        self.calls = 0

    def decode(self, ids: list[int]) -> str:
        return "x" * len(ids)

    def logits(self, input_ids: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.table[input_ids]


def test_recorded_logits_stand_for_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, subject = Table(0), Table(1)
    monkeypatch.setattr(evaluate, "open_subject", lambda *_args, **_options: original)
    ids = np.random.default_rng(2).integers(0, VOCAB, (WINDOWS, LENGTH))
    for _ in range(2):
        found = evaluate.recorded("any", original.tokenizer, ids, tmp_path / "logits", threads=1)
    assert original.calls == WINDOWS
    assert [path.suffix for path in (tmp_path / "logits").iterdir()] == [".npy"]
    whole = score_windows(subject, original, ids)
    judged = evaluate.evaluate(subject, found)
    assert judged["kl"] == pytest.approx(whole["kl"].of_subject().value)
    assert judged["perplexity"] == pytest.approx(whole["perplexity"].of_subject().value)
    assert judged["original_perplexity"] == pytest.approx(whole["perplexity"].of_original().value)
    assert judged["kl"] > 0


def test_other_windows_are_recorded_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Table(0)
    monkeypatch.setattr(evaluate, "open_subject", lambda *_args, **_options: original)
    for seed in (1, 2):
        ids = np.random.default_rng(seed).integers(0, VOCAB, (WINDOWS, LENGTH))
        found = evaluate.recorded("any", original.tokenizer, ids, tmp_path, threads=1)
        assert np.array_equal(found.logits(ids[1:2])[0], original.table[ids[1]])
    assert len(list(tmp_path.iterdir())) == 2
