"""Learning curves: from the manifest of a pass that learned to a drawing of every measurement."""

from typing import Any

import pytest
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.records.record import LearningCurve, Measurement, learning_curves
from pydantic import ValidationError

pytestmark = pytest.mark.chain


STEPS: list[dict[str, Any]] = [
    {"pass": "wanda", "damage": {"kl": 2.0}},
    {
        "pass": "recover",
        "details": {
            "measure": "kl",
            "held_out": [[0, 2.0], [5, 0.5], [9, 0.6]],
            "tokens": [0, 640, 1200],
            "kept": 5,
        },
    },
]


def test_a_curve_is_what_the_manifest_says() -> None:
    (curve,) = learning_curves(STEPS)
    assert curve == LearningCurve(
        step="recover", measure="kl", tokens=[0, 640, 1200], losses=[2.0, 0.5, 0.6], kept=1
    )
    with pytest.raises(ValidationError, match="as many losses"):
        LearningCurve(step="recover", measure="kl", tokens=[0, 1], losses=[1.0], kept=0)


def test_the_report_draws_it(measured: list[Measurement]) -> None:
    lines = measured
    learned = {"learning": learning_curves(STEPS)}
    changed = [line.model_copy(update={"subject": line.subject.model_copy(update=learned)}) for line in lines]
    assert "<h3>Learning</h3>" not in render_report(lines)
    page = render_report(changed)
    assert "<h3>Learning</h3>" in page and "after 640 tokens" in page
    assert "held-out KL to the original, nats" in page
