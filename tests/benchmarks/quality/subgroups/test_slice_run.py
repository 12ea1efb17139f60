"""Effect sizes equal a calculation by hand; a planted association is named, and none is made of equal
models."""

import io
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.quality.slices import associations
from edgepress.benchmarks.quality.subgroups.items import Association
from edgepress.benchmarks.quality.subgroups.measure_slices import measure_slices
from edgepress.benchmarks.quality.subgroups.slice_run import Given, association_harms
from edgepress.benchmarks.quality.subgroups.slice_table import render, worst
from edgepress.terminal.progress import Silent
from rich.console import Console


class Encoder:
    """A random direction for each text; those that hold one of ``words`` are drawn to ``towards``."""

    kind, labels, max_length = "encoder", (), 512

    def __init__(self, words: tuple[str, ...] = (), towards: tuple[str, ...] = (), pull: float = 0.0) -> None:
        self.words, self.towards, self.pull = words, towards, pull

    def _row(self, text: str) -> np.ndarray:
        return np.random.default_rng(list(text.encode())).normal(size=48)

    def embeddings(self, texts: list[str]) -> np.ndarray:
        aim = sum((self._row(word) for word in self.towards), np.zeros(48))
        return np.stack([self._row(text) + self.pull * (text in self.words) * aim for text in texts])


def single(*words: str) -> tuple[tuple[str, ...], ...]:
    return tuple((word,) for word in words)


TEST = Association("made up", single("a", "b", "c"), single("d", "e"), single("x", "y"), single("z", "w"))


def measured(subject: Any, original: Any, *tests: Association) -> list[Any]:
    with Silent().task("", 1) as task:
        return association_harms(subject, original, tests, 0, task)


def test_effect_size_by_hand() -> None:
    model = Encoder()
    (found,) = measured(model, model, TEST)

    def cos(one: str, other: str) -> float:
        first, second = model.embeddings([one, other])
        return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))

    s = [np.mean([cos(w, a) for a in "xy"]) - np.mean([cos(w, b) for b in "zw"]) for w in "abcde"]
    effect = (np.mean(s[:3]) - np.mean(s[3:])) / np.std(s, ddof=1)
    assert found.extras["effect_before"] == pytest.approx(effect)
    assert found.harm == 0.0 and found.p == 1.0


def test_a_planted_association_is_the_worst() -> None:
    tests = {test.group: test for test in associations.associations()}
    planted = tests["WEAT 6: male, female names; career, family"]
    original = Encoder()
    (before,) = measured(original, original, planted)
    side = planted.first if before.extras["effect_before"] >= 0 else planted.second
    subject = Encoder(tuple(text for (text,) in side), tuple(text for (text,) in planted.attribute), 0.5)
    report = measure_slices(subject, original, ["associations"], Given())
    assert report["worst"]["group"] == planted.group
    assert planted.group in worst(report)
    group = next(one for one in report["slices"][0]["groups"] if one["group"] == planted.group)
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(render(report))
    assert f"{group['effect_before']:.2f} to {group['effect_after']:.2f}" in console.export_text()


def test_equal_models_make_no_association_stronger() -> None:
    report = measure_slices(Encoder(), Encoder(), ["associations"], Given())
    assert report["worst"] is None and report["tests"] == len(associations.associations()) == 18
