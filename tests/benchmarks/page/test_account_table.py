"""Grams of CO₂: a factor with its source and year, or none at all."""

import pytest
from edgepress.benchmarks.page.account_table import parse_grid
from edgepress.errors import InputError


def test_a_kilowatt_hour_is_the_grid_s_factor() -> None:
    grid = parse_grid("380 g/kWh, an agency, its report, 2023")
    assert (grid.grams_per_kwh, grid.source, grid.year) == (380.0, "an agency, its report", 2023)
    assert grid.grams(3.6e6) == pytest.approx(380.0)
    assert str(grid) == "380 g/kWh (an agency, its report, 2023)"


@pytest.mark.parametrize(
    "text", ["380", "380 g/kWh", "380 g/kWh, 2023", "9000 g/kWh, x, 2023", "-1 g/kWh, x, 2023"]
)
def test_a_factor_without_source_or_year_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no factor of a grid"):
        parse_grid(text)
