"""How the held-out loss of each pass that learned fell with the tokens it had learned from."""

from __future__ import annotations

from ..records import numerals
from ..records.record import LearningCurve
from . import svg
from .breakdowns import WIDTHS, Drawing
from .join import Group

MOST_CURVES = 6
NAMES = {"kl": "held-out KL to the original, nats", "distance": "held-out distance to the original"}


def curve_drawings(group: Group, anchor: str) -> list[Drawing]:
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
