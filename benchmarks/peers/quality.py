"""The results of the comparison of quantizers: a table by bits, and its bars.

Quality at equal size is compared among results of the same bits a weight; cost among methods of one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from .bars import Bar
from .tables import shown, table

OURS = "edgepress_passes"
KL, MEMORY = 0.8, 0.5
TEXT = "wikipedia"


class Quality(BaseModel):
    """One tool, one scheme. ``error`` is empty when it worked, and the numbers are there then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peer: str
    title: str
    variant: str
    method: str
    bits: int
    group_size: int
    scale_bits: int
    zero_bits: int
    stored_bits: float
    calibrated: bool
    error: str = ""
    cpu_s: float | None = None
    wall_s: float | None = None
    peak_rss_bytes: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """Tool and method."""
        return f"{self.title} {self.method}"

    @property
    def kl(self) -> float | None:
        """Mean KL to the original on held-out Wikipedia, nats a token."""
        return self.metrics.get(TEXT, {}).get("kl")


def bars(found: Sequence[Quality]) -> list[Bar]:
    """Quality by bits; CPU time and memory by method. A ratio at or above the target is met.

    The ratio of quality is the best peer's KL over ours, so that its target is 1 / 0.8.
    """
    widths = sorted({one.bits for one in found}, reverse=True)
    return [*(_quality(found, bits) for bits in widths), *_costs(found)]


def _best(found: Iterable[Quality], field: str) -> Quality | None:
    worked = [one for one in found if getattr(one, field) is not None]
    return min(worked, key=lambda one: getattr(one, field), default=None)


def _quality(found: Sequence[Quality], bits: int) -> Bar:
    same = [one for one in found if one.bits == bits]
    ours = _best((one for one in same if one.peer == OURS), "kl")
    peer = _best((one for one in same if one.peer != OURS), "kl")
    ratio = peer.kl / ours.kl if ours and peer and ours.kl and peer.kl else None
    mine, theirs = (f"{one.label}: KL {one.kl:.4f}" if one else "–" for one in (ours, peer))
    return Bar("KL to the original", f"W{bits}-g64", mine, theirs, ratio, 1 / KL)


def _costs(found: Sequence[Quality]) -> Iterable[Bar]:
    for mine in (one for one in found if one.peer == OURS and one.cpu_s and one.calibrated):
        same = [one for one in found if one.peer != OURS and _work(one) == _work(mine)]
        for field, name, target in (("cpu_s", "CPU time", 1.0), ("peak_rss_bytes", "peak RSS", 1 / MEMORY)):
            peer = _best(same, field)
            if peer is None:
                continue
            ratio = float(getattr(peer, field)) / float(getattr(mine, field))
            ours, other = _costed(mine, field), _costed(peer, field)
            yield Bar(f"{name} of {mine.method}", f"W{mine.bits}-g64", ours, other, ratio, target)


def _work(one: Quality) -> tuple[str, int]:
    return one.method.split(",")[0], one.bits


def _costed(one: Quality, field: str) -> str:
    value = float(getattr(one, field))
    return f"{one.label}: {value:.0f} s" if field == "cpu_s" else f"{one.label}: {value / 1e6:.0f} MB"


def page(found: Sequence[Quality], notes: Sequence[str]) -> str:
    """The whole file as Markdown."""
    rows = [
        [bar.name, bar.where, bar.ours, bar.peer, shown(bar.ratio, 2), f"{bar.target:.3g}", bar.verdict]
        for bar in bars(found)
    ]
    parts = ["# Quantizers against the peers: SmolLM2-135M", _results(found), "## Bars"]
    parts.append(table(["bar", "scheme", "ours", "best peer", "ratio", "target", "verdict"], rows))
    failed = sorted({(f"{one.label}, {one.bits} bits", one.error) for one in found if one.error})
    if failed:
        parts += ["## What could not run", table(["tool", "error"], failed)]
    parts.append("\n".join(f"- {note}" for note in [*notes, f"Versions: {_versions(found)}."]))
    return "\n\n".join(parts) + "\n"


def _results(found: Sequence[Quality]) -> str:
    texts = list(dict.fromkeys(text for one in found for text in one.metrics))
    names = ("kl", "top1_agreement", "perplexity")
    header = [
        "scheme",
        "tool and method",
        "bits a weight",
        *(f"{text} {name}" for text in texts for name in names),
    ]
    header += ["CPU s", "peak RSS MB"]
    worked = [one for one in found if not one.error]
    rows = []
    for one in sorted(worked, key=lambda one: (-one.bits, one.kl if one.kl is not None else float("inf"))):
        cells = [
            shown(one.metrics.get(text, {}).get(name), digits)
            for text in texts
            for name, digits in zip(names, (4, 3, 2), strict=True)
        ]
        memory = None if one.peak_rss_bytes is None else one.peak_rss_bytes / 1e6
        scheme = f"W{one.bits}-g{one.group_size}{' asym' if one.zero_bits else ''}"
        cost = [shown(one.cpu_s), shown(memory)]
        rows.append([scheme, one.label, f"{one.stored_bits:.2f}", *cells, *cost])
    return table(header, rows)


def _versions(found: Sequence[Quality]) -> str:
    named = {f"{name} {number}" for one in found for name, number in one.versions.items()}
    return ", ".join(sorted(named))
