"""A boolean is no number, wherever options are read."""

import pytest
from edgepress.compress.numbers.option_model import OptionModel
from edgepress.compress.recipe import CalibrationSettings
from pydantic import ValidationError


class Options(OptionModel):
    count: int | None = None
    rate: float = 0.5
    name: str | bool = ""
    exact: bool = False


@pytest.mark.parametrize("given", [{"count": True}, {"rate": False}])
def test_a_boolean_is_no_number(given: dict[str, bool]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(given)


def test_a_boolean_stands_where_one_belongs() -> None:
    found = Options.model_validate({"exact": True, "name": False, "count": 3, "rate": 1})
    assert (found.exact, found.name, found.count, found.rate) == (True, False, 3, 1.0)


def test_calibration_is_checked_so() -> None:
    with pytest.raises(ValidationError):
        CalibrationSettings.model_validate({"samples": True})
