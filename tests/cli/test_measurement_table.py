"""What metrics are called on the terminal."""

import pytest
from edgepress.cli import measurement_table
from edgepress.cli.measurement_table import in_words


@pytest.mark.parametrize("metric", measurement_table._ORDER)
def test_a_reader_gets_words(metric: str) -> None:
    assert "_" not in in_words(metric) and in_words(metric) != metric


def test_what_has_no_words_keeps_its_own() -> None:
    assert in_words("output_tps") == "output tps"
