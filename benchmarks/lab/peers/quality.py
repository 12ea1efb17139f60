"""The results of the comparison of quantizers: a table by bits, and its bars.

Quality at equal size is compared among results of the same bits a weight; cost among methods of one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from .bars import PeerBar
from .tables import shown, table

OURS = "edgepress_passes"
KL, MEMORY, PERPLEXITY = 0.8, 0.5, 1.005
TEXT = "wikipedia"
COMPARED = ("W4-g64", "W3-g64", "W2-g64")


class QuantizerResult(BaseModel):
    """One tool, one scheme. ``error`` is empty when it worked, and the numbers are there then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peer: str
    title: str
    variant: str
    method: str
    bits: int
    group_size: int | None
    scale_bits: int
    zero_bits: int
    stored_bits: float
    calibrated: bool
    activations: int = 16
    budget: float | None = None
    error: str = ""
    cpu_s: float | None = None
    wall_s: float | None = None
    peak_rss_bytes: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    machine: str = Field("", description="where it was made: costs are compared on one machine only")

    @property
    def label(self) -> str:
        """Tool and method."""
        return f"{self.title} {self.method}"

    @property
    def scheme(self) -> str:
        """``W4-g64``, ``W8A8``, ``mixed``."""
        if self.budget is not None:
            return "mixed"
        if self.activations < 16:
            return f"W{self.bits}A{self.activations}"
        return f"W{self.bits}-g{self.group_size}" if self.group_size else f"W{self.bits} per channel"

    @property
    def order(self) -> tuple[bool, float, str]:
        """Where it stands in the table: plans last, more bits first."""
        return self.budget is not None, -(self.budget or self.bits), self.scheme

    @property
    def kl(self) -> float | None:
        """Mean KL to the original on held-out Wikipedia, nats a token."""
        return self.metrics.get(TEXT, {}).get("kl")


def bars(found: Sequence[QuantizerResult]) -> list[PeerBar]:
    """Quality by bits; CPU time and memory by method. A ratio at or above the target is met.

    The ratio of quality is the best peer's KL over ours, so that its target is 1 / 0.8.
    """
    schemes = sorted({one.scheme for one in found if one.scheme in COMPARED}, reverse=True)
    return [
        *(_quality(found, scheme) for scheme in schemes),
        *_mixed(found),
        *_perplexity(found),
        *_costs(found),
    ]


def _best(found: Iterable[QuantizerResult], field: str) -> QuantizerResult | None:
    worked = [one for one in found if getattr(one, field) is not None]
    return min(worked, key=lambda one: getattr(one, field), default=None)


def _quality(found: Sequence[QuantizerResult], scheme: str) -> PeerBar:
    same = [one for one in found if one.scheme == scheme]
    ours = _best((one for one in same if one.peer == OURS), "kl")
    peer = _best((one for one in same if one.peer != OURS), "kl")
    ratio = peer.kl / ours.kl if ours and peer and ours.kl and peer.kl else None
    return PeerBar("KL to the original", scheme, _kl_label(ours), _kl_label(peer), ratio, 1 / KL)


def _kl_label(one: QuantizerResult | None) -> str:
    return f"{one.label}: KL {one.kl:.4f}" if one else "–"


def _mixed(found: Sequence[QuantizerResult]) -> Iterable[PeerBar]:
    """A plan of widths against every uniform scheme that is no more than a hundredth of a bit larger."""
    budgets = sorted({one.budget for one in found if one.budget is not None and one.kl is not None})
    for budget in budgets:
        ours = _best((one for one in found if one.budget == budget), "kl")
        uniform = (one for one in found if one.budget is None and one.stored_bits <= budget + 0.01)
        other = _best(uniform, "kl")
        ratio = other.kl / ours.kl if ours and other and ours.kl and other.kl else None
        name = "KL of a plan, against uniform schemes of its size"
        yield PeerBar(name, f"{budget:g} bits", _kl_label(ours), _kl_label(other), ratio, 1.0)


def _perplexity(found: Sequence[QuantizerResult]) -> Iterable[PeerBar]:
    """The original's perplexity over that of our best W8A8, on each text."""
    ours = _best((one for one in found if one.peer == OURS and one.scheme == "W8A8"), "kl")
    for text, metrics in (ours.metrics if ours else {}).items():
        mine, original = metrics["perplexity"], metrics["original_perplexity"]
        shown_ours, other = f"{ours.label if ours else ''}: {mine:.2f}", f"original: {original:.2f}"
        yield PeerBar("perplexity", f"W8A8, {text}", shown_ours, other, original / mine, 1 / PERPLEXITY)


def _costs(found: Sequence[QuantizerResult]) -> Iterable[PeerBar]:
    for mine in (one for one in found if one.peer == OURS and one.cpu_s and one.calibrated):
        same = [one for one in found if one.peer != OURS and not one.error and _work(one) == _work(mine)]
        for field, name, target in (("cpu_s", "CPU time", 1.0), ("peak_rss_bytes", "peak RSS", 1 / MEMORY)):
            peer = _best(same, field)
            if peer is None:
                continue
            ratio = float(getattr(peer, field)) / float(getattr(mine, field))
            ours, other = _costed(mine, field), _costed(peer, field)
            yield PeerBar(f"{name} of {mine.method}", mine.scheme, ours, other, ratio, target)


def _work(one: QuantizerResult) -> tuple[str, str, str]:
    """What is the same work: a method of one name (its options follow a comma; a pass that comes "then" is
    more), one scheme, one machine.
    """
    name = one.method if ", then " in one.method else one.method.split(",")[0]
    return name, one.scheme, one.machine


def _costed(one: QuantizerResult, field: str) -> str:
    value = float(getattr(one, field))
    return f"{one.label}: {value:.0f} s" if field == "cpu_s" else f"{one.label}: {value / 1e6:.0f} MB"


def page(found: Sequence[QuantizerResult], notes: Sequence[str]) -> str:
    """The whole file as Markdown."""
    rows = [
        [bar.name, bar.where, bar.ours, bar.peer, shown(bar.ratio, 2), f"{bar.target:.3g}", bar.verdict]
        for bar in bars(found)
    ]
    parts = ["# Quantizers: edgepress and other tools on SmolLM2-135M", _results(found), "## Bars"]
    parts.append(table(["bar", "scheme", "ours", "best peer", "ratio", "target", "verdict"], rows))
    failed = sorted({(f"{one.label}, {one.scheme}", _plain(one.error)) for one in found if one.error})
    machines = sorted({one.machine for one in found if one.machine and not one.error})
    if machines:
        named = "; ".join(f"{chr(65 + index)}: {machine}" for index, machine in enumerate(machines))
        notes = [*notes, f"Machines, by the letter beside the seconds: {named}."]
    if failed:
        parts += ["## What failed or was not run", table(["tool", "error"], failed)]
    if any(one.peer != OURS and one.error for one in found):
        notes = ["Bars compare with the peers that ran, and with no others.", *notes]
    parts.append("\n".join(f"- {note}" for note in [*notes, f"Versions: {_versions(found)}."]))
    return "\n\n".join(parts) + "\n"


def _plain(error: str) -> str:
    """A tool's last words without the colours of a terminal, and without what would end a table's cell."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", error).replace("|", "¦")


def _results(found: Sequence[QuantizerResult]) -> str:
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
    machines = sorted({one.machine for one in worked if one.machine})
    rows = []
    for one in sorted(worked, key=lambda one: (one.order, one.kl if one.kl is not None else float("inf"))):
        cells = [
            shown(one.metrics.get(text, {}).get(name), digits)
            for text in texts
            for name, digits in zip(names, (4, 3, 2), strict=True)
        ]
        memory = None if one.peak_rss_bytes is None else one.peak_rss_bytes / 1e6
        letter = f" {chr(65 + machines.index(one.machine))}" if one.machine else ""
        scheme = f"{one.scheme}{' asym' if one.zero_bits else ''}"
        cost = [f"{shown(one.cpu_s)}{letter}", shown(memory)]
        rows.append([scheme, one.label, f"{one.stored_bits:.2f}", *cells, *cost])
    return table(header, rows)


def _versions(found: Sequence[QuantizerResult]) -> str:
    named = {f"{name} {number}" for one in found for name, number in one.versions.items()}
    return ", ".join(sorted(named))
