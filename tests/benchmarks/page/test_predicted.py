"""Predictions on a page: columns, points and tables of their own, and a stranger's file is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.page import predicted
from edgepress.benchmarks.page.device_table import device_table
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.page.predicted import Predicted, read_predictions
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.page.result_groups import ResultGroup
from edgepress.benchmarks.records.record import Measurement
from edgepress.devices.predict.prediction import Prediction, Quantity
from edgepress.errors import InputError


def foretold(artifact: str, rate: float | None, target: str = "raspberry-pi-5") -> dict[str, Any]:
    """As ``edgepress predict --json`` prints it."""
    quantities = (
        Quantity("decode_tps", rate, "tok/s", 0.5),
        Quantity("rss_peak_bytes", 2e8, "bytes", 0.1),
        Quantity("ttft_ms", None, "ms", 0.5, "its sheet does not say"),
    )
    check = "edgepress profile BUNDLE --on pi"
    made = Prediction(
        "a", target, "data sheet", "its sheet", None, {"prompt_tokens": 64}, quantities, check, (), artifact
    )
    return made.as_dict()


@pytest.fixture
def file(measured: list[Measurement], tmp_path: Path) -> Path:
    """Of three versions of the decoder, and of one plan, which has no artifact."""
    group = join(measured)[0]
    identities = [row.subject.manifest_sha256 for row in group.rows][:3]
    listed = [foretold(one, 10.0 + index) for index, one in enumerate(identities)]
    path = tmp_path / "predicted.json"
    path.write_text(json.dumps({"predictions": [*listed, foretold("", 5.0), foretold("0" * 64, 7.0)]}))
    return path


def last_known(group: ResultGroup) -> str:
    return group.rows[-1].subject.manifest_sha256


def test_a_predicted_device_has_a_column_of_its_own(measured: list[Measurement], file: Path) -> None:
    group = join(measured)[0]
    (device,) = predicted.devices(group, read_predictions([file]))
    found, before = device_table(group, [device]), device_table(group)
    assert found.devices == (*before.devices, "raspberry-pi-5, predicted")
    assert [row.speeds[:-1] for row in found.rows] == [row.speeds for row in before.rows]
    last = [row.speeds[-1] for row in found.rows]
    assert all(one.predicted and not one.recommended and not one.ratio for one in last)
    (silent,) = predicted.devices(group, [Predicted.model_validate(foretold(last_known(group), None))])
    assert device_table(group, [silent]).devices == before.devices, "a column has a speed"
    assert {"10.0 [5.00,\N{NO-BREAK SPACE}15.0]", "–"} <= {one.rate.text for one in last}


def test_points_are_hollow_with_their_bands_and_tables_say_what_is_not_measured(
    measured: list[Measurement], file: Path
) -> None:
    read = read_predictions([file])
    page, plain = render_report(measured, read), render_report(measured)
    for mark in (
        'class="mark predicted"',
        'class="band"',
        "Predicted, not measured",
        "raspberry-pi-5, predicted",
    ):
        assert mark in page and mark not in plain
    assert "Measure it: edgepress profile BUNDLE --on pi" in page
    assert "Accuracy against predicted speed on raspberry-pi-5" in page


def test_where_nothing_is_expected_the_most_that_is_possible_is_shown(
    measured: list[Measurement], tmp_path: Path
) -> None:
    identity = join(measured)[0].rows[0].subject.manifest_sha256
    bound = foretold(identity, None, "h100-sxm")
    bound["quantities"]["decode_tps"]["high"] = 35022.0
    path = tmp_path / "bound.json"
    path.write_text(json.dumps({"predictions": [bound]}))
    page = render_report(measured, read_predictions([path]))
    assert page.count("≤ 35\N{NARROW NO-BREAK SPACE}000") == 2, "in the first table and in that of the device"
    assert 'class="mark predicted"' not in page


@pytest.mark.parametrize("text", ["{}", "[]", '{"predictions": [{"artifact": "x"}]}', '{"predictions": 1}'])
def test_another_file_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(InputError, match=r"other\.json"):
        read_predictions([tmp_path / "other.json"])


def test_a_band_of_a_stranger_is_finite() -> None:
    hostile = foretold("a", 1.0)
    hostile["quantities"]["decode_tps"]["high"] = float("inf")
    with pytest.raises(ValueError, match="high"):
        Predicted.model_validate(hostile)
