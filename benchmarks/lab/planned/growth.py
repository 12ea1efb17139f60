"""How peak memory and processor time grow with a model, as plots, and what they would be of larger ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from ....files.storage import write_atomic
from ...page import plot_layout
from ...page.svg import element
from ...records import conditions
from ..makers.random_llama import Size
from ..study.page import write_table
from .cases import COMMAND, SHAPES, VERBS, Taken, weights_of

LARGER = {"13b": Size(5120, 13824, 40), "70b": Size(8192, 28672, 80)}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640.0, 400.0, 64.0, 30.0, 110.0, 44.0
COLOURS = ("#1f6feb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be123c", "#4b5563")
STYLE = "text{font:12px system-ui,sans-serif;fill:#57606a}path{fill:none;stroke:#d0d7de}"

# By case, its points: parameters in billions, and the quantity.
Series = Mapping[str, Sequence[tuple[float, float]]]


def parameters(model: str) -> float:
    """Billions."""
    return weights_of((SHAPES | LARGER)[model])[1] / 1e9


def write_growth(taken: Sequence[Taken], results: Path) -> None:
    """Two plots beside the page ``large-model.md``, and on it the table of larger models."""
    quantities: dict[str, tuple[str, Callable[[Taken], float]]] = {
        "memory": ("peak memory, GB", lambda one: one.peak / 1e9),
        "time": ("processor time, s", lambda one: one.cpu_seconds),
    }
    for name, (title, value) in quantities.items():
        series: dict[str, list[tuple[float, float]]] = {}
        for one in taken:
            series.setdefault(one.case, []).append((parameters(one.model), value(one)))
        drawn = plot(title, {case: sorted(points) for case, points in series.items()})
        write_atomic(results / f"large-model-{name}.svg", drawn.encode())
    rows = [row for case in dict.fromkeys(one.case for one in taken) if (row := extrapolated(taken, case))]
    if rows:
        header = ["case", "from", *(f"{model}: peak GB, CPU s" for model in LARGER)]
        write_table(
            results / "large-model.md",
            "How it grows, and what larger models would take",
            COMMAND,
            header,
            rows,
            [
                "**Extrapolated, not measured**, for a laptop with one thread of such a processor (a server "
                "GPU is below): the straight line through the smallest and the largest model of a case. Time "
                "goes by the parameters; memory by the weights of a block in a compression, by those of the "
                "model where a mapped bundle is counted.",
                "A model of which some blocks were measured stands here as all of them would be: see there.",
                "13b: 5120 hidden, 13824 in the MLP, 40 blocks; 70b: 8192, 28672, 80.",
                "![peak memory](large-model-memory.svg) ![processor time](large-model-time.svg)",
            ],
        )


def extrapolated(taken: Sequence[Taken], case: str) -> list[str]:
    """A line of the table; empty where a case has only one size, or holds a small model whole and a large one
    not, so that its memory falls.
    """
    found = sorted((one for one in taken if one.case == case), key=lambda one: parameters(one.model))
    if len(found) < 2 or found[-1].peak < found[0].peak:
        return []
    first, last = found[0], found[-1]
    cells = []
    for model in LARGER:
        peak = _line(first, last, model, int(case in VERBS), lambda one: one.peak / 1e9)
        seconds = _line(first, last, model, 1, lambda one: one.cpu_seconds)
        cells.append(f"{peak:.2g}, {round(seconds, -1 if seconds > 100 else 0):,.0f}")
    return [case, f"{first.model}, {last.model}", *cells]


def _line(first: Taken, last: Taken, model: str, whole: int, value: Callable[[Taken], float]) -> float:
    """Where the line through both is at ``model``, over a block's weights, or those of the ``whole``."""
    near, far, at = (weights_of((SHAPES | LARGER)[one])[whole] for one in (first.model, last.model, model))
    slope = (value(last) - value(first)) / (far - near)
    return value(last) + slope * (at - far)


def plot(title: str, series: Series) -> str:
    """A standalone drawing of lines over the parameters, both axes logarithmic."""
    every = [point for points in series.values() for point in points]
    x = plot_layout.fit([point[0] for point in every], log=True)
    y = plot_layout.fit([point[1] for point in every], log=True)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def spot(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + (right - LEFT) * x.at(point[0]), bottom - (bottom - TOP) * y.at(point[1])

    marks = [element("style", text=STYLE), element("text", text=f"{title} (log)", x=8.0, y=16.0)]
    marks.append(element("text", text="parameters, billions (log)", x=right, y=HEIGHT - 6, text_anchor="end"))
    for tick in y.ticks:
        height = spot((every[0][0], tick))[1]
        marks.append(element("path", d=f"M{LEFT:.1f} {height:.1f}H{right:.1f}"))
        marks.append(element("text", text=conditions.tick(tick), x=LEFT - 8, y=height + 4, text_anchor="end"))
    for tick in x.ticks:
        across = spot((tick, every[0][1]))[0]
        marks.append(element("path", d=f"M{across:.1f} {bottom:.1f}v5"))
        marks.append(
            element("text", text=conditions.tick(tick), x=across, y=bottom + 18, text_anchor="middle")
        )
    marks += _lines({case: [spot(point) for point in points] for case, points in series.items()})
    drawn = element(
        "svg",
        element("title", text=f"{title} of each case over the parameters of the model"),
        *marks,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
    )
    return f"{drawn}\n"


def _lines(series: Series) -> list[Markup]:
    """Each case as a line with its points, named at its end; names that would touch are moved apart."""
    marks, ends = [], []
    for number, (case, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "M" + "L".join(f"{across:.1f} {height:.1f}" for across, height in points)
        marks.append(element("path", d=path, style=f"stroke:{colour};stroke-width:1.5"))
        marks += [element("circle", cx=across, cy=height, r=3.0, fill=colour) for across, height in points]
        ends.append((points[-1][1], points[-1][0], case, colour))
    lowest = -1.0
    for height, across, case, colour in sorted(ends):
        lowest = max(height, lowest + 13)
        name = element("text", text=case, x=WIDTH - RIGHT + 12, y=lowest + 4, style=f"fill:{colour}")
        leader = f"M{across + 4:.1f} {height:.1f}L{WIDTH - RIGHT + 9:.1f} {lowest:.1f}"
        marks += [name, element("path", d=leader, style=f"stroke:{colour};stroke-dasharray:1 3")]
    return marks
