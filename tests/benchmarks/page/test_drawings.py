"""Axes, labels and drawings: ticks inside, labels apart, nothing unescaped."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest
from edgepress.benchmarks.page import svg
from edgepress.benchmarks.page.heat_grid import Grid, HorizontalBar, bars, heat_grid, text_width
from edgepress.benchmarks.page.plot_layout import POINT_RADIUS, Box, fit, linear_ticks, place
from hypothesis import assume, example, given
from hypothesis import strategies as st

NUMBERS = st.floats(1e-6, 1e9, allow_nan=False)


@pytest.mark.chain
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.booleans())
@example([1e9, 999999999.9999999], False)
@example([1e9, 999999999.9999999], True)
def test_an_axis_holds_its_values_and_ticks(values: list[float], log: bool) -> None:
    axis = fit(values, log=log)
    assert 2 <= len(axis.ticks) <= 14
    assert list(axis.ticks) == sorted(set(axis.ticks))
    for number in (*values, *axis.ticks):
        assert -1e-9 <= axis.at(number) <= 1 + 1e-9


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_ticks_are_even_multiples_of_1_2_or_5(low: float, width: float) -> None:
    assume(width > abs(low) * 1e-6)
    ticks = linear_ticks(low, low + width)
    step = ticks[1] - ticks[0]
    digit = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(digit - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-3
    assert all(math.isclose(tick / step, round(tick / step), abs_tol=1e-3) for tick in ticks)


def test_zero_lies_at_the_foot_of_a_logarithmic_axis() -> None:
    axis = fit([0.0, 0.01, 1.0], log=True)
    assert axis.at(0.0) == 0.0
    assert 0 < axis.at(0.01) < axis.at(1.0) < 1


@pytest.mark.chain
@given(
    st.lists(
        st.tuples(st.integers(0, 8).map(lambda n: n * 60.0), st.integers(0, 9).map(lambda n: n * 30.0)),
        min_size=1,
        max_size=10,
        unique=True,
    )
)
def test_labels_cover_neither_each_other_nor_a_point(points: list[tuple[float, float]]) -> None:
    area = Box(-20, -20, 560, 340)
    placements = place(points, [(95.0, 15.0)] * len(points), area)
    boxes = [placement.box for placement in placements]
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))
    dots = [Box(x - POINT_RADIUS, y - POINT_RADIUS, 2 * POINT_RADIUS, 2 * POINT_RADIUS) for x, y in points]
    assert all(box.overlap(dot) == 0 for box in boxes for dot in dots)
    assert all(box.outside(area) < 1e-9 for box in boxes)


HOSTILE = "\"><script>alert(1)</script>&'"


def _texts(drawing: str) -> tuple[list[str], set[str]]:
    root = ElementTree.fromstring(drawing)
    return [element.text or "" for element in root.iter()], {element.tag for element in root.iter()}


def test_drawings_escape_what_they_write() -> None:
    points = [svg.Point(1, 2, HOSTILE), svg.Point(3, 4, "b", "doubtful")]
    scale = svg.Scale(HOSTILE)
    drawings = [
        svg.scatter("p", points, scale, scale, title=HOSTILE, description=HOSTILE, front=[0, 1]),
        bars("b", [HorizontalBar(HOSTILE, 1, HOSTILE)], title=HOSTILE, description=HOSTILE),
        heat_grid("h", Grid((HOSTILE,), 1, ((3,),), ((0, 0),), HOSTILE), title=HOSTILE),
    ]
    for drawing in drawings:
        texts, tags = _texts(drawing)
        assert HOSTILE in texts
        assert tags <= {"svg", "title", "desc", "path", "text", "circle", "rect"}


def test_a_drawing_is_named_for_those_who_cannot_see_it() -> None:
    root = ElementTree.fromstring(bars("x", [HorizontalBar("a", 1, "1")], title="Time", description="a 1"))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "x-t x-d"
    assert [child.get("id") for child in root if child.tag in ("title", "desc")] == ["x-t", "x-d"]


@pytest.mark.parametrize("label", ["SumRootMeanSquareNorm", "WWWWWWWW", "W" * 60, "MatMulNBits"])
def test_labels_of_bars_stand_within_the_drawing(label: str) -> None:
    drawn = bars("x", [HorizontalBar(label, 1, "82.7 % · 3 500 ms")], title="Time", description="a 1")
    (text,) = [one for one in ElementTree.fromstring(drawn).iter("text") if one.get("class") == "label"]
    shown = text.text or ""
    assert text_width(shown) <= float(text.get("x") or 0) and shown.rstrip("…") in label
    assert text_width("SumRootMeanSquareNorm") > 160  # as DejaVu Sans has it


def test_heat_grid_draws_each_cell_once_where_it_belongs() -> None:
    grid = Grid(("a", "b"), 3, ((0, 8, None), (8, 0, 8)))
    root = ElementTree.fromstring(heat_grid("h", grid, title="t"))
    paths = {path.get("class"): path.get("d") or "" for path in root.iter("path")}
    assert {name: d.count("z") for name, d in paths.items()} == {"heat0": 2, "heat8": 3}
    assert paths["heat0"].split("z")[1].startswith("m18 14")


def test_a_front_goes_in_steps_on_axes_that_say_that_they_are_logarithmic() -> None:
    points = [svg.Point(1, 100, "a"), svg.Point(10, 1, "b")]
    x, y = svg.Scale("size", log=True), svg.Scale("loss", log=True)

    def line(steps: svg.Steps) -> list[list[float]]:
        drawing = svg.scatter("s", points, x, y, title="t", description="d", front=[0, 1], steps=steps)
        assert {"size (log)", "loss (log)"} <= set(_texts(drawing)[0])
        (front,) = [one for one in ElementTree.fromstring(drawing).iter() if one.get("class") == "front"]
        return [[float(n) for n in spot.split()] for spot in (front.get("d") or "").strip("M").split("L")]

    start, end = line("none")
    assert start[0] < end[0] and start[1] < end[1]  # y grows downwards
    assert line("across") == [start, [end[0], start[1]], end]
    assert line("up") == [start, [start[0], end[1]], end]
