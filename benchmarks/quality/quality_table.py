"""The result of validate for a person: each metric of the original and the compressed model, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..records.conditions import describe
from ..records.record import Measurement
from .subgroups import slice_table

if TYPE_CHECKING:
    from rich.console import RenderableType

PERCENT = frozenset(
    {
        *("top1_agreement", "label_agreement", "label_accuracy"),
        *("retrieval_at_1", "neighbour_overlap", "probe_accuracy"),
        *("loops", "repetition", "distinct_2", "same_replies"),
    }
)
TITLES = {
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "kl": "KL divergence",
    "top1_agreement": "top-1 agreement",
    "same_replies": "same replies",
    "loops": "replies that end in a loop",
    "repetition": "repeated in replies (4-grams)",
    "distinct_2": "distinct in replies (2-grams)",
    "reply_nats": "replies in the original",
    "cosine": "cosine to original",
    "retrieval_at_1": "passages found first (R@1)",
    "reciprocal_rank": "mean reciprocal rank",
    "neighbour_overlap": "same 10 nearest",
    "spearman_sentences": "Spearman of sentence pairs",
    "probe_accuracy": "linear probe",
    "spearman_wordsim353": "Spearman WordSim-353",
    "spearman_simlex999": "Spearman SimLex-999",
    "label_accuracy": "accuracy of labels",
    "label_agreement": "agreement of labels",
    "label_kl": "KL divergence of labels",
}
# An original agrees with itself: these say nothing about it.
SELF_EVIDENT = frozenset(
    {
        *("kl", "top1_agreement", "cosine", "label_agreement", "label_kl"),
        *("neighbour_overlap", "spearman_sentences", "same_replies"),
    }
)
ORDER = tuple(TITLES)


def rows(measurement: Measurement) -> list[tuple[str, str, str, str, str, str]]:
    """``(metric, unit, original, compressed, difference, interval)`` as text, in reading order.

    The interval is that of the difference where there is one, else of the metric.
    """
    compare: dict[str, Any] = measurement.compare or {}
    found = []
    for name in sorted(compare["original"], key=lambda name: (_place(name), name)):
        metric, own = measurement.metrics[name], compare["original"][name]
        delta = compare["delta"][name]
        alone = name in SELF_EVIDENT
        interval = metric.ci95 if alone else delta["ci95"]
        found.append(
            (
                TITLES.get(name, name),
                "%" if name in PERCENT else metric.unit,
                "" if alone else _number(name, own["value"]),
                _number(name, metric.value),
                "" if alone else f"{_number(name, delta['value'], sign=True)}",
                _interval(name, interval, sign=not alone),
            )
        )
    return found


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _number(name: str, value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    digits = {"perplexity": 2}.get(name, 1 if name in PERCENT else 4)
    value = 100 * value if name in PERCENT else value
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(name: str, interval: Any, *, sign: bool) -> str:
    if interval is None:
        return "–"
    low, high = interval
    return f"{_number(name, low, sign=sign)} … {_number(name, high, sign=sign)}"


def _of_text(measurement: Measurement) -> list[RenderableType]:
    """A line for a model that lost its text."""
    from rich.text import Text

    found = (measurement.compare or {}).get("text")
    if not found or found["verdict"] == "keeps":
        return []
    looped, prompts = round(found["loops"] * found["prompts"]), found["prompts"]
    said = f"{looped} of {prompts} greedy replies end in a loop"
    if found["verdict"] == "strays":
        said = "the original would not say what it replies"
    return [Text(f"the text is lost: {said}", style="bold red")]


def _of_groups(measurement: Measurement) -> list[RenderableType]:
    found = (measurement.compare or {}).get("slices")
    return [] if found is None else [slice_table.render(found)]


def render(measurement: Measurement) -> RenderableType:
    """The table with its conditions."""
    from rich.console import Group
    from rich.text import Text

    from ...terminal.tables import FittingTable

    subject, baseline = measurement.subject, measurement.baseline
    original = baseline.source or baseline.name if baseline is not None else ""
    table = FittingTable(box=None, pad_edge=False, header_style="dim")
    table.add_column("metric")
    table.add_column("unit", style="dim")
    for title in ("original", "compressed", "difference", "95 % interval"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows(measurement):
        table.add_row(*row)
    return Group(
        Text(f"{subject.name} {subject.scheme}", style="bold"),
        Text(f"against {original}", style="dim"),
        table,
        *_of_text(measurement),
        Text(describe(measurement), style="dim"),
        Text(
            "interval: of the difference, paired; of the metric itself where it is of both models",
            style="dim",
        ),
        *_of_groups(measurement),
    )
