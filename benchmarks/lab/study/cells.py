"""The columns of a table by their name in a study: heading and cell of each, a dash where none is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ....compress.prune.structured.budget import WEIGHTS
from ....errors import UnknownName
from ....files.storage import read_json
from ...records.record import Measurement
from .interleaved import Rates, ratio
from .making import RowQuality, Workshop
from .peer_rows import described as described_peer
from .ratios import Ratio, over
from .schema import HeldOut, StudyRow
from .sizes import COLUMNS, READ, fraction_left

NONE = "–"
# Columns beside those of sizes.py; `profile` and `gain` are followed by what of a profile, `times` by the row
# whose KL is the measure.
SPECIAL = ("label", "quality", "speed", "latency", "removed", "proofs", "profile:", "gain:", "times:")
# Headings and digits of metrics; others are called as they are, with four digits.
METRICS = {
    "kl": ("KL", 4),
    "perplexity": ("ppl", 2),
    "top1_agreement": ("top-1", 3),
    "bits_per_byte": ("bits per byte", 4),
    "cosine": ("cosine", 4),
    "retrieval_at_1": ("R@1", 3),
    "reciprocal_rank": ("MRR", 3),
    "neighbour_overlap": ("nearest 10", 3),
    "spearman_sentences": ("sentence pairs ρ", 3),
    "probe_accuracy": ("probe", 3),
    "spearman_wordsim353": ("WordSim-353", 4),
    "spearman_simlex999": ("SimLex-999", 4),
    "label_accuracy": ("accuracy", 3),
}
PROFILED = {
    "decode_tps": ("decode tok/s", 1.0, 0),
    "prefill_tps": ("prefill tok/s", 1.0, 0),
    "sentences_per_second": ("sentences/s", 1.0, 0),
    "rss_peak_bytes": ("peak RSS MB", 1e-6, 0),
    "decode_j_per_token": ("J a token", 1.0, 3),
}


@dataclass
class Known:
    """What was found about a row: by text its quality, its rates and those of the baselines, its profile."""

    row: StudyRow
    quality: list[tuple[HeldOut, RowQuality | None]]
    rates: dict[str, Rates] = field(default_factory=dict)
    profile: list[Measurement] = field(default_factory=list)

    def over(self, other: Known, name: str) -> Ratio | None:
        """A metric over that of another row, on the first text that has it."""
        pairs = [(a, b) for (_, a), (_, b) in zip(self.quality, other.quality, strict=True) if a and b]
        return next((found for a, b in pairs if (found := over(a, b, name))), None)

    def metric(self, name: str) -> float | None:
        """A metric on the first text that has it."""
        for _, found in self.quality:
            if found is not None and name in found.values:
                return found.values[name]
        return None


@dataclass
class KnownRows:
    """A table's workshop and everything that is known, in the order of its rows."""

    shop: Workshop
    known: list[Known]

    def of(self, name: str) -> Known | None:
        """What is known of the row ``name``; None where it was left out or could not be made."""
        return next((one for one in self.known if one.row.name == name), None)


Cells = list[tuple[str, Callable[[Known], str]]]


def columns(rows: KnownRows) -> Cells:
    """Heading and cell of every column that the table asks for."""
    found: Cells = []
    for name in rows.shop.table.columns:
        kind, _, rest = name.partition(":")
        if kind == "quality":
            found += _quality(rows.shop.table.held_out)
        elif kind in ("speed", "latency"):
            found += _speed(rows, latency=kind == "latency")
        elif kind == "proofs":
            found += _proofs(rows)
        elif kind in ("profile", "gain"):
            found.append(_profiled(kind, rest))
        elif kind == "times":
            found.append((f"KL × {described(rows.shop.rows[rest])} [95 %]", partial(_kl_times, rows, rest)))
        elif name == "label":
            found.append(("passes", lambda known: described(known.row)))
        elif name == "removed":
            found.append(("of the KL removed", partial(_removed, rows)))
        elif name in COLUMNS:
            found.append((COLUMNS[name][0], partial(_of_files, rows.shop, COLUMNS[name][1])))
        else:
            raise UnknownName("column", name, [*COLUMNS, *SPECIAL])
    return found


def shown(number: float | None, digits: int) -> str:
    """A number for a table; a dash where there is none."""
    return NONE if number is None else f"{number:.{digits}f}"


def described(row: StudyRow) -> str:
    """What a row is called: its label, or its passes with their options."""
    if row.label or row.original:
        return row.label or "original"
    if row.peer is not None:
        return described_peer(row.peer)
    steps = []
    for step in row.passes:
        options = ", ".join(f"{key} {value}" for key, value in step.items() if key != "pass")
        steps.append(f"{step['pass']} ({options})" if options else str(step["pass"]))
    return " → ".join(steps) or row.recipe or row.options


def _of_files(shop: Workshop, cell: Callable[[Workshop, StudyRow], str], known: Known) -> str:
    return NONE if shop.failure(known.row) else cell(shop, known.row)


def _removed(rows: KnownRows, known: Known) -> str:
    """The fraction of the baseline's KL that a row has removed; without one, of the best row above."""
    mine, baseline = known.metric("kl"), rows.shop.table.baseline
    above = rows.known[: rows.known.index(known)]
    others = [rows.of(baseline)] if baseline else above
    left = [one.metric("kl") for one in others if one and one is not known and not one.row.original]
    before = [kl for kl in left if kl is not None]
    return NONE if mine is None or not before else f"{1 - mine / min(before):.1%}"


def _kl_times(rows: KnownRows, name: str, known: Known) -> str:
    other = rows.of(name)
    found = None if other is None or other is known else known.over(other, "kl")
    return NONE if found is None else str(found)


def _quality(texts: Sequence[HeldOut]) -> Cells:
    found: Cells = []
    for number, held_out in enumerate(texts):
        for asked in held_out.metrics:
            name, _, how = asked.partition(":")
            title, digits = METRICS.get(name, (name.replace("_", " "), 4))
            heading = f"{held_out.label} {title} {how}".strip()
            found.append((heading, partial(_score, number, name, how, digits)))
    return found


def _score(number: int, name: str, how: str, digits: int, known: Known) -> str:
    quality = known.quality[number][1]
    value = None if quality is None else quality.values.get(name)
    reference = None if quality is None else quality.reference.get(name)
    if not how:
        return shown(value, digits)
    if value is None or not reference:
        return NONE
    changes = {"change": f"{value - reference:+.4f}", "kept": f"{value / reference:.1%}"}
    return {**changes, "gap": f"{value / reference - 1:+.1%}"}[how]


def _speed(rows: KnownRows, *, latency: bool) -> Cells:
    timing = rows.shop.table.timing
    if timing is None:
        return []
    found: Cells = []
    for baseline in timing.baseline:
        timed = (known.rates.get(baseline, {}) for known in rows.known)
        kinds = dict.fromkeys(kind for rates in timed for each in rates.values() for kind in each)
        for kind in kinds:
            if latency:
                found.append((f"latency for weights, {kind}", partial(_latency, rows.shop, baseline, kind)))
            else:
                found.append((f"{kind} × {baseline} [95 %]", partial(_times, baseline, kind)))
    return found


def _ratio(baseline: str, kind: str, known: Known) -> tuple[float, str] | None:
    rates = known.rates.get(baseline, {})
    if known.row.name == baseline or known.row.name not in rates:
        return None
    return ratio(rates[known.row.name][kind], rates[baseline][kind])


def _times(baseline: str, kind: str, known: Known) -> str:
    found = _ratio(baseline, kind, known)
    return NONE if found is None else found[1]


def _latency(shop: Workshop, baseline: str, kind: str, known: Known) -> str:
    """By how much latency fell for each part of the blocks' weights that went; for decoding, which reads the
    head as well, also for each part of all that a token reads.
    """
    found = _ratio(baseline, kind, known)
    counted = [WEIGHTS, READ] if kind.startswith("decode") else [WEIGHTS]
    left = [fraction_left(shop, known.row, budget) for budget in counted]
    if found is None or max(left) >= 1:
        return NONE
    return " · ".join(f"{(1 - 1 / found[0]) / (1 - fraction):.2f}" for fraction in left)


def _profiled(kind: str, name: str) -> tuple[str, Callable[[Known], str]]:
    if name not in PROFILED:
        raise UnknownName("column of a profile", name, PROFILED)
    title, factor, digits = PROFILED[name]
    if kind == "gain":
        return f"{title} × original [95 %]", lambda known: _gain(known, name)

    def cell(known: Known) -> str:
        for line in known.profile[-1:]:
            metric = line.metrics.get(name)
            if metric is not None and metric.value is not None:
                return shown(metric.value * factor, digits)
        return NONE

    return title, cell


def _gain(known: Known, name: str) -> str:
    for line in known.profile:
        entry: dict[str, Any] = (line.compare or {}).get("by_metric", {}).get(name) or {}
        if entry.get("ratio_median") is not None:
            low, high = entry["ci95"]
            return f"{entry['ratio_median']:.2f} [{low:.2f}, {high:.2f}]"
    return NONE


def _proofs(rows: KnownRows) -> Cells:
    """A column for each part of the exporter's proof that holds numbers."""
    proofs = {one.row.name: proof_of(rows.shop.bundle(one.row)) for one in rows.known}
    names = sorted({name for proof in proofs.values() for name in proof})
    return [(name, partial(_part, proofs, name)) for name in names]


def _part(proofs: Mapping[str, Mapping[str, str]], name: str, known: Known) -> str:
    return proofs[known.row.name].get(name, NONE)


def proof_of(bundle: Path) -> dict[str, str]:
    """The parts of a bundle's proof that hold numbers, each in a line."""
    parity: dict[str, Any] = read_json(bundle / "manifest.json")["parity"]
    parts = {name: _brief(part) for name, part in sorted(parity.items()) if isinstance(part, dict)}
    return {name: line for name, line in parts.items() if line}


def _brief(part: Mapping[str, Any]) -> str:
    numbers = {name: number for name, number in part.items() if isinstance(number, int | float)}
    return ", ".join(f"{name} {number:.4g}" for name, number in sorted(numbers.items()))
