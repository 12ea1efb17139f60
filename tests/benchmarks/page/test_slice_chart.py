"""The chart of slices: a dot a group, the worst named in chart, verdict and tile; odd lines draw nothing."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from edgepress.benchmarks.page.conclusion import sentences
from edgepress.benchmarks.page.headline import headline
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.page.slice_chart import slice_figures, strips_of, worst_group
from edgepress.benchmarks.page.tiles import tiles
from edgepress.benchmarks.records.record import Measurement

pytestmark = pytest.mark.chain

Report = dict[str, Any]


def group(name: str, times: float, *, alarm: bool = False, p: float | None = 0.5) -> Report:
    return {"group": name, "times": times, "alarm": alarm, "p": p, "harm": times, "others": 1.0}


REPORT: Report = {
    "slices": [
        {"name": "tasks", "title": "group", "why": "no row of the text has a group"},
        {"name": "syntax", "title": "phenomenon", "groups": [group("binding", 1.1), group("islands", 0.4)]},
        {"name": "entropy", "title": "entropy", "groups": [group("below 1 nat", 9.0, p=None)]},
        {
            "name": "languages",
            "title": "language",
            "groups": [group("English", 0.3), group("Thai", 3.1, alarm=True), group("Greek", 30.0)],
        },
    ],
    "tests": 5,
    "worst": None,
}


def with_report(lines: list[Measurement], report: Any) -> list[Measurement]:
    """The decoder's lines of quality, each with ``report``."""
    return [
        line.model_copy(update={"compare": {**(line.compare or {}), "slices": report}})
        if "kl" in line.metrics
        else line
        for line in lines
    ]


@pytest.fixture
def rows(measured: list[Measurement]) -> Callable[[Any], Any]:
    def of(report: Any) -> Any:
        found = join(with_report(measured, report))[0]
        row = headline(found)
        assert row is not None
        return found, row

    return of


def test_the_worst_group_is_named_at_every_place(rows: Callable[[Any], Any]) -> None:
    found, row = rows(REPORT)
    assert [strip.title for strip in strips_of(row)] == ["language", "phenomenon"]
    assert worst_group(row)[1].name == "Thai"  # type: ignore[index]
    assert any("Harmed most: Thai (language), 3.1× what the others lose." in s for s in sentences(found))
    assert any("Thai" in tile.caption and tile.number == "3.1×" for tile in tiles(found))
    for figure in slice_figures(found, "m1"):
        for drawing in (figure.wide, figure.narrow):
            assert drawing.count("<circle") == 5 and drawing.count('class="dot alarm"') == 1
            assert "Thai 3.1×" in drawing and "below 1 nat" not in drawing


def test_a_number_that_no_float_holds_is_left_out(rows: Callable[[Any], Any]) -> None:
    groups = [group("binding", 1.1), group("islands", 10**400)]
    _, row = rows({**REPORT, "slices": [{"name": "syntax", "title": "phenomenon", "groups": groups}]})
    assert [[one.name for one in strip.groups] for strip in strips_of(row)] == [["binding"]]


def test_dots_beyond_the_axis_stand_at_its_end(rows: Callable[[Any], Any]) -> None:
    found, _ = rows(REPORT)
    figure = slice_figures(found, "m1")[0]
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', figure.narrow)]
    assert min(places) >= 0 and max(places) <= 350


@pytest.mark.parametrize(
    "report",
    [None, {}, [], {"slices": 3}, {"slices": [None, {"groups": 1}, {"groups": [None, {"times": "x"}]}]}],
)
def test_what_is_no_report_draws_nothing(rows: Callable[[Any], Any], report: Any) -> None:
    found, row = rows(report)
    assert slice_figures(found, "m1") == [] and worst_group(row) is None


def test_hostile_names_are_words(measured: list[Measurement]) -> None:
    evil = "</text></svg><script>alert(1)</script>"
    one = {"name": evil, "title": evil, "groups": [group(evil, 2.0, alarm=True), group(evil, 1.0)]}
    page = render_report(with_report(measured, {"slices": [one]}))
    assert "<script" not in page and "Who loses more" in page
