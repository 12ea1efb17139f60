"""Ratios of two rows: windows that are hard for both do not widen the interval."""

import pytest
from edgepress.benchmarks.lab.study.making import RowQuality
from edgepress.benchmarks.lab.study.ratios import over


def row(windows: list[float], **more: float) -> RowQuality:
    return RowQuality({"kl": sum(windows) / len(windows), **more}, {}, {"kl": windows, "perplexity": windows})


def test_windows_are_resampled_in_pairs() -> None:
    hard = [0.1, 0.9, 0.2, 1.4, 0.3, 0.7]
    found = over(row([0.75 * kl for kl in hard]), row(hard), "kl")
    assert found is not None and found.value == pytest.approx(0.75)
    assert found.interval == pytest.approx((0.75, 0.75))
    assert str(found) == "0.75 [0.75, 0.75]"


def test_no_interval_where_the_figure_is_not_the_mean_of_its_windows() -> None:
    ours, theirs = row([1.0, 2.0], perplexity=20.0), row([2.0, 2.0], perplexity=10.0)
    found = over(ours, theirs, "perplexity")
    assert found is not None and (found.value, found.interval) == (2.0, None)
    assert over(ours, row([2.0, 2.0]), "perplexity") is None
    shorter = over(ours, row([2.0]), "kl")
    assert shorter is not None and shorter.interval is None
