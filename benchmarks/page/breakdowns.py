"""What the report draws of one version alone: error and bits by layer, time by operator, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..records import numerals
from ..records.record import LearningCurve
from . import svg
from .account_table import AccountTable, account_tables
from .headline import headline
from .heat_grid import Damage, damage, heat_grid, widths
from .join import ResultGroup, ResultRow

MOST_GRIDS = 6
MOST_PROFILES = 4
MOST_OPS = 8
LEAST_SHARE = 0.01
WIDTHS = (("w", 520.0), ("n", 350.0))


@dataclass(frozen=True)
class Drawing:
    """A drawing in both widths with what is written above and below it."""

    title: str
    wide: Markup
    narrow: Markup
    note: str = ""


def damage_drawings(group: ResultGroup, anchor: str) -> list[Drawing]:
    found = [(row, d) for row in group.compressed if (d := damage(row.subject)) is not None][:MOST_GRIDS]
    drawings: list[Drawing] = []
    for index, (row, measured) in enumerate(found):
        title = f"{row.subject.scheme}: relative squared error of each linear"
        wide, narrow = (
            heat_grid(
                f"{anchor}-damage{index}-{form}",
                measured.kinds,
                measured.blocks,
                measured.levels,
                measured.flagged,
                title=title,
                description=_damage_text(measured),
                width=width,
            )
            for form, width in WIDTHS
        )
        drawings.append(Drawing(row.subject.scheme, wide, narrow, _damage_text(measured)))
    return drawings


def _damage_text(measured: Damage) -> str:
    worst = measured.worst[0]
    text = f"Error of the {measured.measured_on}: median {numerals.scientific(measured.median)}; "
    text += f"worst {worst.name} with {numerals.scientific(worst.error or 0.0)}"
    others = {status: count for status, count in measured.statuses.items() if status != "ok"}
    if others:
        listed = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        text += f"; not ok (dotted): {listed}"
    return f"{text}."


def width_drawings(group: ResultGroup, anchor: str) -> list[Drawing]:
    """A grid of bits for each version whose layers have different widths."""
    found = [(row, w) for row in group.compressed if (w := widths(row.subject)) is not None][:MOST_GRIDS]
    drawings: list[Drawing] = []
    for index, (row, spent) in enumerate(found):
        text = ", ".join(f"{n} linear{'s' * (n > 1)} of {bits} bits" for bits, n in spent.counts.items())
        wide, narrow = (
            heat_grid(
                f"{anchor}-widths{index}-{form}",
                spent.kinds,
                spent.blocks,
                spent.levels,
                (),
                title=f"{row.subject.scheme}: bits of each linear",
                description=text,
                width=width,
            )
            for form, width in WIDTHS
        )
        drawings.append(Drawing(row.subject.scheme, wide, narrow, text))
    return drawings


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


def time_drawings(group: ResultGroup, anchor: str) -> list[Drawing]:
    drawings: list[Drawing] = []
    for index, row in enumerate(_in_order(group)):
        line = row.line("latency")
        items = _operators(line.time_by_op) if line is not None else []
        if not items or len(drawings) == MOST_PROFILES:
            continue
        title = f"{row.subject.scheme}: time by operator"
        text = ", ".join(f"{bar.label} {bar.text}" for bar in items)
        wide, narrow = (
            svg.bars(f"{anchor}-time{index}-{form}", items, title=title, description=text, width=width)
            for form, width in WIDTHS
        )
        drawings.append(Drawing(row.subject.scheme, wide, narrow))
    return drawings


def _operators(entries: Sequence[dict[str, Any]]) -> list[svg.HorizontalBar]:
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
        svg.HorizontalBar(
            op,
            share,
            f"{numerals.percent(share)} % · {numerals.significant(ms, 2)} ms",
            "plain" if index else "accent",
        )
        for index, (op, ms, share) in enumerate(shown)
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


MOST_CURVES = 6
NAMES = {"kl": "held-out KL to the original, nats", "distance": "held-out distance to the original"}


def curve_drawings(group: ResultGroup, anchor: str) -> list[Drawing]:
    """One drawing for each pass that learned, of every compressed version."""
    entries = [(row.subject.scheme, curve) for row in group.compressed for curve in row.subject.learning]
    return [
        _drawing(*entry, f"{anchor}-learning{index}") for index, entry in enumerate(entries[:MOST_CURVES])
    ]


def _drawing(scheme: str, curve: LearningCurve, identifier: str) -> Drawing:
    losses, tokens, kept = curve.losses, curve.tokens, curve.kept
    points = [
        svg.Point(
            float(across), up, numerals.significant(up, 3) if index in (0, kept) else "", _kind(index, kept)
        )
        for index, (across, up) in enumerate(zip(tokens, losses, strict=True))
    ]
    title = f"{scheme}: {svg.clip(curve.step, 40)}"
    note = f"From {numerals.significant(losses[0], 3)} to {numerals.significant(losses[kept], 3)} "
    note += f"after {tokens[kept]:,} tokens, whose parameters are kept.".replace(",", "\u202f")
    loss = svg.Scale(
        NAMES.get(curve.measure, svg.clip(curve.measure, 40)), log=max(losses) > 3 * min(losses) > 0
    )
    wide, narrow = (
        svg.scatter(
            f"{identifier}-{form}",
            points,
            svg.Scale("tokens learned from"),
            loss,
            title=f"{title}, learning",
            description=note,
            front=range(len(points)),
            width=width,
            height=0.6 * width,
        )
        for form, width in WIDTHS
    )
    return Drawing(title, wide, narrow, note)


def _kind(index: int, kept: int) -> svg.Kind:
    return "front" if index == kept else "baseline" if index == 0 else "plain"
