"""The picture of the README: quality against size of SmolLM2-135M, for edgepress and other quantizers.

    python -m edgepress.docs.generator.trade_off     # writes docs/trade-off.svg

Drawn from the committed table of quality on sealed text; for each tool the best of its methods at each size.
"""

import math
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MEASURED = ROOT / "benchmarks/lab/results/sealed-quality.md"
SECTION = "## SmolLM2-135M in 4, 3 and 2 bits, by many quantizers"
PICTURE = ROOT / "docs/trade-off.svg"
TOOLS = {
    "edgepress": "#0b6e4f",
    "AutoRound": "#7a4fb5",
    "GPTQModel": "#b5651d",
    "llm-compressor": "#1f5fa8",
    "HQQ": "#8a8a1f",
    "torchao": "#a83232",
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 64, 140, 34, 48
BITS, KL = (2.15, 4.6), (0.08, 4.0)
LINE = 17.0  # between the names at the right

Points = list[tuple[float, float]]


def measured() -> dict[str, Points]:
    """Of each tool ``(stored bits a weight, KL in nats per token)`` by bits: its methods that no
    other of its own with as few bits comes closer than.
    """
    best: dict[str, dict[float, float]] = {tool: {} for tool in TOOLS}
    for row in _rows():
        tool = next((tool for tool in TOOLS if row["passes"].startswith(tool)), None)
        if tool and row["KL"] != "–" and float(row["bits a weight"]) <= BITS[1]:
            bits, kl = float(row["bits a weight"]), float(row["KL"])
            best[tool][bits] = min(kl, best[tool].get(bits, math.inf))
    return {tool: _front(points) for tool, points in best.items()}


def _rows() -> list[dict[str, str]]:
    """The rows of the table by its headings."""
    section = MEASURED.read_text(encoding="utf-8").partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    headings, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(headings, row, strict=True)) for row in rows]


def _front(points: dict[float, float]) -> Points:
    front: Points = []
    for bits, kl in sorted(points.items()):
        if not front or kl < front[-1][1]:
            front.append((bits, kl))
    return front


def _x(bits: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (bits - BITS[0]) / (BITS[1] - BITS[0])


def _y(kl: float) -> float:
    low, high = map(math.log, KL)
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(kl)) / (high - low)


def text(x: float, y: float, said: str, **attributes: str) -> str:
    """An SVG text at a place; ``text_anchor`` becomes ``text-anchor``."""
    stated = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{stated}>{said}</text>'


def _axes() -> list[str]:
    lines = []
    for kl in (0.1, 0.2, 0.5, 1, 2):
        lines.append(f'<path d="M{LEFT} {_y(kl):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(text(LEFT - 8, _y(kl) + 4, f"{kl:g}", text_anchor="end"))
    lines += [
        text(_x(bits), HEIGHT - BOTTOM + 20, f"{bits:g}", text_anchor="middle")
        for bits in (2.5, 3, 3.5, 4, 4.5)
    ]
    lines.append(text(8, 18, "KL divergence from the original, nats per token (lower is closer)"))
    lines.append(
        text(WIDTH - RIGHT, HEIGHT - 8, "stored bits a weight (fewer is smaller)", text_anchor="end")
    )
    return lines


def _line(tool: str, points: Points) -> list[str]:
    colour, strong = TOOLS[tool], tool == "edgepress"
    path = "L".join(f"{_x(bits):.1f} {_y(kl):.1f}" for bits, kl in points)
    marks = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{2.5 if strong else 1.2}"/>']
    for bits, kl in points:
        marks.append(
            f'<circle cx="{_x(bits):.1f}" cy="{_y(kl):.1f}" r="{4 if strong else 2.8}" fill="{colour}"/>'
        )
    return marks


def _names(series: dict[str, Points]) -> list[str]:
    """The tools' names beside the last points of their lines, moved apart where they would touch."""
    at = sorted((_y(points[-1][1]), tool) for tool, points in series.items())
    marks, free = [], -math.inf
    for wanted, tool in at:
        y = max(wanted, free)
        free = y + LINE
        weight = "bold" if tool == "edgepress" else "normal"
        x = _x(series[tool][-1][0])
        line = f"M{x + 5:.1f} {wanted:.1f}L{WIDTH - RIGHT + 8} {y:.1f}"
        marks.append(f'<path d="{line}" stroke="#bbb" stroke-dasharray="2 3"/>')
        marks.append(text(WIDTH - RIGHT + 12, y + 4, tool, fill=TOOLS[tool], font_weight=weight))
    return marks


def picture() -> str:
    """The drawing as SVG."""
    series = measured()
    drawn = [mark for tool in reversed(TOOLS) for mark in _line(tool, series[tool])]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#333" role="img">'
    )
    title = "<title>SmolLM2-135M: KL divergence against stored bits, for six quantizers</title>"
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return "\n".join([head, title, back, *_axes(), *_names(series), *drawn, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
