"""Numbers as text."""

import pytest
from edgepress.benchmarks.records import conditions
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "text"),
    [(170.2, "170"), (43.06, "43.1"), (0.14234, "0.142"), (9.996, "10.0"), (12400, "12\u202f400"), (0, "0")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert conditions.significant(value) == text


@given(st.floats(1e-5, 1e8))
def test_significant_digits_keep_the_value(value: float) -> None:
    read = float(conditions.significant(value, 4).replace("\u202f", ""))
    assert read == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.1484, 3, "0.148"),
        (0.0002, 3, "<0.001"),
        (0, 3, "0.000"),
        (-0.00001, 3, ">-0.001"),
        (569.6, 0, "570"),
    ],
)
def test_fixed(value: float, decimals: int, text: str) -> None:
    assert conditions.fixed(value, decimals) == text


def test_the_rest() -> None:
    assert conditions.perplexity(26.9) == "26.90"
    assert conditions.perplexity(132.34) == "132.3"
    assert conditions.perplexity(71234) == "71\u202f200"
    assert conditions.megabytes(83_120_000) == "83.1"
    assert conditions.percent(0.797) == "79.7"
    assert [conditions.times(6.51), conditions.times(12.2)] == ["6.5×", "12×"]
    assert [conditions.tick(x) for x in (10.0, 0.1, 0.01, 2000.0)] == ["10", "0.1", "0.01", "2\u202f000"]
