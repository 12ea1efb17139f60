"""What `edgepress fit` says of a plan and of what it found claims no more than was measured."""

from typing import Any

import pytest
from edgepress.cli.fit_summary import plan_text, summary_text

PLAN: dict[str, Any] = {
    "model": "pico",
    "budgets": ["--max-disk 60MB"],
    "smallest": 40e6,
    "largest": 90e6,
    "units": 21,
    "options": 6,
    "cuts": 0,
    "judged": "KL",
    "hours": 2.5,
}
SOLVED = {"predicted": {"disk": 59e6, "KL": 0.1}, "front": [{"disk": 50e6, "KL": 0.2}]}
FOUND: dict[str, Any] = {
    "model": "pico",
    "judged": "KL",
    "budgets": ["--max-disk 60MB"],
    "measured": {"disk": 58e6, "KL": 0.11},
    "held_out": {"KL": 0.12},
    "held_out_trials": [1],
    "trials": [],
    "why_no_more": [],
    "gap": 0.001,
    "bits": [],
    "cut": [],
    "prices": [],
    "repeat": ["edgepress", "compress"],
}


@pytest.mark.parametrize(
    "solved, said",
    [
        ({"losses_known": False, "feasible": None}, "result   its KL is predicted once a run has measured"),
        ({"losses_known": True, "feasible": False}, "result   none is predicted to keep the budgets"),
        ({"losses_known": True, "feasible": True, **SOLVED}, "result   disk 59.0 MB, KL 0.1: an estimate"),
    ],
)
def test_a_plan_says_one_result_and_calls_it_what_it_is(solved: dict[str, Any], said: str) -> None:
    text = plan_text(PLAN | solved)
    assert said in text and text.count("  result ") == 1
    assert ("front    disk 50.0 MB, KL 0.2 (estimate)" in text) is bool(solved["feasible"])
    assert text.endswith("no trial begins after 2.5 hours") and "to compress once" not in text


def test_cuts_are_counted_in_a_plan_and_named_in_what_was_found() -> None:
    cut = {"line": "block 3: 5 of 8 heads", "predicted": {"disk": 48e6, "KL": 0.3}}
    text = plan_text(PLAN | {"losses_known": False, "cuts": 70, "smallest_cut": 25e6, "cut": cut})
    assert "70 further options have fewer heads, channels or blocks: down to 25.0 MB" in text
    assert "predicted to be better: block 3: 5 of 8 heads" in text and "disk 48.0 MB, KL 0.3, before" in text
    found = summary_text("OUT", FOUND | {"cut": ["block 3: 5 of 8 heads", "block 7 goes"]})
    assert "  cut first: block 3: 5 of 8 heads\n  cut first: block 7 goes\n" in found
    assert "cut first" not in summary_text("OUT", FOUND)


def test_a_trial_that_was_not_delivered_says_what_it_misses() -> None:
    """It may be smaller than what was: one of 8.2 MB missed a budget of accuracy, which was not shown."""
    predicted, measured = {"disk": 8e6, "KL": 0.1}, {"disk": 8e6, "KL": 0.06}
    one = {"method": "awq, gptq", "predicted": predicted, "measured": measured}
    trials = [{**one, "number": 1, "misses": []}, {**one, "number": 2, "misses": ["accuracy ≥ 0.78"]}]
    text = summary_text("OUT", FOUND | {"trials": trials})
    assert "  trial 1, awq, gptq: predicted disk 8.0 MB, KL 0.1, measured disk 8.0 MB, KL 0.06\n" in text
    assert "measured disk 8.0 MB, KL 0.06: misses accuracy ≥ 0.78\n" in text


def test_a_plan_counts_the_time_of_each_method() -> None:
    times = {"compress_seconds": {"rtn": 119.0, "gptq": 600.0}}
    text = plan_text(PLAN | {"losses_known": False} | times)
    assert "about 119 s to compress once by rtn (estimate)" in text
    assert "about 10 min to compress once by gptq (estimate)" in text and "trials are not counted" in text


@pytest.mark.parametrize(
    "held_out, trials, said",
    [
        ({"KL": 0.12}, [1], "disk 58.0 MB; KL 0.12 on the part that no choice was made on"),
        ({"KL": 0.12}, [1, 2, 3], "KL 0.12 on a part that refused 2 better trials, so that it took part"),
        ({}, [], "disk 58.0 MB, KL 0.11 on the part that it was chosen by"),
    ],
)
def test_a_figure_says_what_it_is_of(held_out: dict[str, float], trials: list[int], said: str) -> None:
    first = summary_text("out", FOUND | {"held_out": held_out, "held_out_trials": trials}).split("\n")[0]
    assert first.startswith("out: pico, disk 58.0 MB") and said in first
