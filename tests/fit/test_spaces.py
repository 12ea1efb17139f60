"""What a cut leaves of a model is chosen among, built and measured as the whole one is."""

import time
from pathlib import Path

import pytest
from edgepress.fit.asked.wish import Wish
from edgepress.fit.budgets import Budget
from edgepress.fit.job import Job
from edgepress.fit.methods import AGAIN, SOLVED, Method
from edgepress.fit.quantities import DECODE, DISK
from edgepress.fit.solve import Solution
from edgepress.fit.spaces import Spaces
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


@pytest.mark.usefixtures("table")
def test_a_cut_is_solved_again_with_the_rate_that_was_measured(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))

    def spaces_within(rate: float) -> Spaces:
        budget = Budget(DECODE, rate, "here")
        wish = Wish(str(pico_llama), (budget,), str(pico_text), samples=16, length=32, threads=1)
        return Job(wish, tmp_path, Silent()).spaces()

    space, key = spaces_within(1.0).of(), "decode on here"
    (size,), (table,) = space.times[key].sizes, space.times[key].tables
    rate = 1 / (0.95 * sum(min(row) for row in table))
    spaces = spaces_within(rate)
    first = spaces.profile(SOLVED)
    # The table is given, the losses are this processor's: steps of the cut are a tenth, so a fifth decides.
    spaces.corrections.seconds[key] = {size: 1.2}
    again = spaces.profile(AGAIN)
    assert first and again and weights(spaces, AGAIN) < weights(spaces, SOLVED)
    assert spaces.profile(SOLVED) == first and spaces.said(AGAIN) == again.lines(spaces.cuts)
    later = spaces_within(rate)
    assert later.is_ready(SOLVED)
    later.corrections.seconds[key] = {size: 1.3}
    assert not later.is_ready(AGAIN)
    later.corrections.seconds[key] = {size: 1.2}
    assert later.is_ready(AGAIN) and later.profile(AGAIN) == again


def weights(spaces: Spaces, cut: str) -> int:
    """Of the blocks that a cut leaves."""
    linears = spaces.source_of(cut).anatomy.linears()
    return sum(one.in_features * one.out_features for one in linears)


@pytest.mark.parametrize(
    ("cut", "passes"),
    [
        pytest.param("narrow 70 %", ["narrow"], marks=pytest.mark.slow),
        # What is left by it learns in the case below.
        pytest.param("layers 70 %", ["layers"], marks=pytest.mark.slow),
        ("layers 70 %, recovered", ["layers", "distill"]),
    ],
)
def test_a_cut_has_candidates_and_a_damage_of_its_own(
    cut: str,
    passes: list[str],
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    budgets = (Budget(DISK, 400e3),)
    wish = Wish(str(pico_llama), budgets, str(pico_text), samples=16, length=32, threads=1, trials=4)
    job = Job(wish, tmp_path, Silent())
    search = job.search(time.monotonic() + 3600)
    whole, left = search.space, search.choices.spaces.of(cut)
    assert sum(max(row) for row in left.sizes) < sum(max(row) for row in whole.sizes)
    assert left.before > 0 == whole.before
    name, _, recovered = cut.partition(", ")
    method = Method("rtn", cut=name, recovered=bool(recovered))
    assert method.space == cut
    found = search.choices.solved(method)
    assert isinstance(found, Solution)
    predicted = search.choices.predicted(found.options, method)
    trial = search.ran(found.options, method, predicted, Silent())
    assert [one["pass"] for one in trial.recipe["passes"]][: len(passes)] == passes
    assert trial.measured["disk"] == pytest.approx(predicted["disk"], rel=0.15) and trial.measured["KL"] > 0
    assert search.choices.spaces.is_ready(cut) and not search.choices.spaces.is_ready("narrow 90 %")
    search.take(trial)
    assert search.choices.predicted(found.options, method) == pytest.approx(trial.measured)
