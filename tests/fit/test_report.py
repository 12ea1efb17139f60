"""What a report says of the trials that were not made."""

from __future__ import annotations

from edgepress.fit.report import reasons


def test_methods_with_the_same_reason_share_a_line() -> None:
    bound = "decode ≥ 180 tok/s on here would have to be 113 tok/s"
    said = [
        f"awq, gptq: {bound}",
        "trial 2 misses KL ≤ 3 on held-out text",
        f"awq, corrected: {bound}",
        "gptq, tuned 1 x: it needs about 8 minutes, for which no time is left",
    ]
    assert reasons(said) == [f"awq, gptq; awq, corrected: {bound}", said[1], said[3]]
    assert reasons([]) == []
