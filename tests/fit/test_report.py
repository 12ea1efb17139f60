"""What a report says of the trials that were not made."""

from typing import Any

import pytest
from edgepress.fit.report import APART, CHOSEN_BY, NOT_READ, reasons, why_delivered


def test_methods_with_the_same_reason_share_a_line() -> None:
    bound = "decode ≥ 180 tok/s on here would have to be 113 tok/s"
    said = [
        f"awq, gptq: {bound}",
        "trial 2 misses KL ≤ 3 on held-out data (4.1; the search measured 2.6)",
        f"awq, corrected: {bound}",
        "gptq, tuned 1 x: it needs about 8 min, for which no time is left",
    ]
    assert reasons(said) == [f"awq, gptq; awq, corrected: {bound}", said[1], said[3]]
    assert reasons([]) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"objective": "cosine", "budgets": ["disk ≤ 10.0 MB"], "held_out_status": APART},
            "delivered: the best of those that keep disk ≤ 10.0 MB, as measured; "
            "cosine 0.9595, Spearman 0.9809 where no choice was made",
        ),
        (
            {"objective": "disk", "budgets": ["cosine ≥ 0.95"], "held_out_status": CHOSEN_BY},
            "delivered: the smallest of those that keep cosine ≥ 0.95, as measured; "
            "cosine 0.9595, Spearman 0.9809 where better trials were refused",
        ),
        (
            {"objective": "cosine", "budgets": ["disk ≤ 10.0 MB"], "held_out_status": NOT_READ},
            "delivered: the best of those that keep disk ≤ 10.0 MB, as measured; "
            "not judged on what is held out",
        ),
    ],
)
def test_the_page_says_what_was_asked_for_and_what_the_held_out_text_gave(
    found: dict[str, Any], said: str
) -> None:
    held_out = {"cosine": 0.95951, "Spearman": 0.98094}
    assert why_delivered({**found, "held_out": held_out}) == said
