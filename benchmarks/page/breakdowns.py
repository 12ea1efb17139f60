"""What the report draws of one version alone: error and bits by layer, time by operator, learning curves."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...files.limits import finite_number
from ..records import conditions
from ..records.conditions import clip
from ..records.record import LearningCurve, Subject
from . import svg
from .account_table import AccountTable, account_tables
from .headline import headline
from .heat_grid import Grid, HorizontalBar, bars, damage, heat_grid, widths
from .result_groups import ResultGroup, ResultRow

MOST_GRIDS = 6
MOST_PROFILES = 4
MOST_OPS = 8
LEAST_SHARE = 0.01
MOST_CURVES = 6
NAMES = {"kl": "held-out KL to the original, nats", "distance": "held-out distance to the original"}


def damage_figures(group: ResultGroup, anchor: str) -> list[svg.Figure]:
    """A grid of errors for each version whose layers have one."""
    return _grids(group, f"{anchor}-damage", "relative squared error", damage)


def width_figures(group: ResultGroup, anchor: str) -> list[svg.Figure]:
    """A grid of bits for each version whose layers have different widths."""
    return _grids(group, f"{anchor}-widths", "bits", widths)


def _grids(
    group: ResultGroup, identifier: str, shown: str, grid_of: Callable[[Subject], Grid | None]
) -> list[svg.Figure]:
    found = [(row.subject.scheme, grid) for row in group.compressed if (grid := grid_of(row.subject))]
    return [
        svg.Figure.of(
            scheme,
            f"{identifier}{index}",
            partial(heat_grid, grid=grid, title=f"{scheme}: {shown} of each linear"),
            grid.description,
        )
        for index, (scheme, grid) in enumerate(found[:MOST_GRIDS])
    ]


def accounts(group: ResultGroup) -> list[tuple[str, list[AccountTable]]]:
    """For each version that was profiled node by node, its scheme and the account of its time and bytes."""
    lines = [(row.subject.scheme, row.line("latency")) for row in _in_order(group)]
    found = [(scheme, line.per_op) for scheme, line in lines if line is not None and line.per_op]
    return [(scheme, account_tables(per_op)) for scheme, per_op in found[:MOST_PROFILES]]


def _in_order(group: ResultGroup) -> list[ResultRow]:
    """Every version once, the one of the headline first."""
    ordered: list[ResultRow] = [
        row for row in (headline(group), *group.baselines, *group.compressed) if row is not None
    ]
    return list({row.subject.manifest_sha256: row for row in ordered}.values())


def time_figures(group: ResultGroup, anchor: str) -> list[svg.Figure]:
    found: list[svg.Figure] = []
    for index, row in enumerate(_in_order(group)):
        line, scheme = row.line("latency"), row.subject.scheme
        items = _operators(line.time_by_op) if line is not None else []
        if not items or len(found) == MOST_PROFILES:
            continue
        text = ", ".join(f"{bar.label} {bar.text}" for bar in items)
        draw = partial(bars, items=items, title=f"{scheme}: time by operator", description=text)
        found.append(svg.Figure.of(scheme, f"{anchor}-time{index}", draw))
    return found


def _operators(entries: Sequence[dict[str, Any]]) -> list[HorizontalBar]:
    """The operators that take most of the time, and the rest as one bar."""
    shares = sorted(
        ((str(e.get("op", "?")), _number(e.get("ms")), _number(e.get("share"))) for e in entries),
        key=lambda item: -item[2],
    )
    shown = [(op, ms, share) for op, ms, share in shares[:MOST_OPS] if share >= LEAST_SHARE]
    rest = shares[len(shown) :]
    if rest and sum(share for *_, share in rest) >= 0.001:
        name = f"{len(rest)} other{'s' * (len(rest) > 1)}"
        shown.append((name, sum(ms for _, ms, _ in rest), sum(share for *_, share in rest)))
    return [
        HorizontalBar(
            op,
            share,
            f"{conditions.percent(share)} % · {conditions.significant(ms, 2)} ms",
            "plain" if index else "accent",
        )
        for index, (op, ms, share) in enumerate(shown)
    ]


def _number(value: object) -> float:
    return finite_number(value) or 0.0


def curve_figures(group: ResultGroup, anchor: str) -> list[svg.Figure]:
    """One drawing for each pass that learned, of every compressed version."""
    entries = [(row.subject.scheme, curve) for row in group.compressed for curve in row.subject.learning]
    return [_figure(*entry, f"{anchor}-learning{index}") for index, entry in enumerate(entries[:MOST_CURVES])]


def _figure(scheme: str, curve: LearningCurve, identifier: str) -> svg.Figure:
    losses, tokens, kept = curve.losses, curve.tokens, curve.kept
    points = [
        svg.Point(
            float(across), up, conditions.significant(up, 3) if index in (0, kept) else "", _kind(index, kept)
        )
        for index, (across, up) in enumerate(zip(tokens, losses, strict=True))
    ]
    title = f"{scheme}: {clip(curve.step, 40)}"
    note = f"From {conditions.significant(losses[0], 3)} to {conditions.significant(losses[kept], 3)} "
    note += f"after {tokens[kept]:,} tokens, whose parameters are kept.".replace(",", "\u202f")
    draw = partial(
        svg.scatter,
        points=points,
        x=svg.Scale("tokens learned from"),
        y=svg.Scale(NAMES.get(curve.measure, clip(curve.measure, 40)), log=max(losses) > 3 * min(losses) > 0),
        title=f"{title}, learning",
        description=note,
        front=range(len(points)),
    )
    sizes = [{**size, "height": 0.6 * size["width"]} for size in svg.BOTH]
    return svg.Figure.of(title, identifier, draw, note, sizes)


def _kind(index: int, kept: int) -> svg.Kind:
    return "front" if index == kept else "baseline" if index == 0 else "plain"
