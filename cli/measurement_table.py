"""What the terminal shows of a measurement line: a row for each metric, and remarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..files.limits import threads_in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..benchmarks.page.account_table import AccountTable
    from ..benchmarks.records.record import Measurement, Metric

_OPERATORS_SHOWN = 6
# First the speeds, whatever order a device's line has them in; energy and others come last.
_ORDER = (
    *("decode_tps", "prefill_tps", "rtfx", "sentences_per_second", "images_per_second", "latency_ms"),
    *("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "load_ms", "load_cold_ms", "rss_peak_bytes", "device_bytes"),
)

# What records call them is in `--json`; a reader gets words.
_WORDS = {
    "decode_tps": "decode",
    "prefill_tps": "prefill, the prompt",
    "rtfx": "rtfx (sound)",
    "sentences_per_second": "sentences",
    "images_per_second": "images",
    "latency_ms": "latency, one alone",
    "ttft_ms": "first token",
    "tpot_ms": "each further token",
    "itl_ms": "between tokens",
    "e2e_ms": "whole reply",
    "load_ms": "load",
    "load_cold_ms": "load, cold",
    "rss_peak_bytes": "peak RSS",
    "device_bytes": "on disk after a run",
    "disk_bytes": "on disk",
    "decode_j_per_token": "energy a token",
}


def in_words(metric: str) -> str:
    """What is measured or predicted as ``metric``, such as ``decode_tps``."""
    return _WORDS.get(metric, metric.replace("_", " "))


def measurement_table(line: Measurement) -> RenderableType:
    """The metrics of ``line``, what speaks for and against them, and the accounts of operators."""
    from rich.console import Group
    from rich.text import Text

    from ..benchmarks.page.account_table import account_tables
    from ..terminal.tables import FittingTable

    table = FittingTable(
        title=f"{line.subject.name} · {line.subject.scheme} · {_conditions(line)}", title_justify="left"
    )
    for title in ("", "median", "CI 95 %", "p90", "p99", "unit", "n"):
        table.add_column(title, justify="left" if title in ("", "unit") else "right")
    for name, metric in sorted(line.metrics.items(), key=_place):
        scale, unit = (1e6, "MB") if metric.unit == "bytes" else (1, metric.unit)
        interval = " – ".join(digits(bound / scale) for bound in metric.ci95) if metric.ci95 else ""
        numbers = [digits(None if value is None else value / scale) for value in (metric.p90, metric.p99)]
        median = digits(None if metric.value is None else metric.value / scale)
        table.add_row(in_words(name), median, interval, *numbers, unit, str(metric.n))
    accounts = [_rendered(found) for found in account_tables(line.per_op)] if line.per_op else []
    return Group(table, *map(Text, _remarks(line)), *accounts)


def measurement_tables(lines: Mapping[str, Measurement]) -> RenderableType:
    """A table for each device by its name."""
    from rich.console import Group

    return Group(
        *(part for name, line in lines.items() for part in (f"on {name}", measurement_table(line), ""))
    )


def _place(named: tuple[str, Metric]) -> int:
    return _ORDER.index(named[0]) if named[0] in _ORDER else len(_ORDER)


def _rendered(account: AccountTable) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    table = Table(title=account.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(account.columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in account.rows:
        table.add_row(*row)
    return Group("", table, account.note) if account.note else table


def digits(value: float | None) -> str:
    """Three digits, and thousands apart."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _conditions(line: Measurement) -> str:
    work, threads = line.workload, threads_in_words(line.runtime["threads"])
    if "new_tokens" in work:
        read = f"{work['seconds']:g} s of sound" if "seconds" in work else str(work["prompt_tokens"])
        return f"{read} + {work['new_tokens']} tokens, {threads}"
    if "size" in work:
        height, width = work["size"]
        return f"images of {height} × {width}, batch {work['batch']}, {threads}"
    return f"{work['length']} tokens, batch {work['batch']}, {threads}"


def _remarks(line: Measurement) -> list[str]:
    from ..benchmarks.page.account_table import energy_remark

    remarks: list[str] = []
    if line.compare:
        remarks.append(_comparison(line.compare, line.baseline.name if line.baseline else "the baseline"))
    if line.roofline:
        remarks.append(
            f"roofline: {100 * (line.roofline['fraction'] or 0):.0f} % of "
            f"{line.roofline['ceiling_tps']:,.0f} tok/s "
            f"({line.roofline['bandwidth_at_weights']['gb_per_second']:.1f} GB/s measured here)"
        )
    remarks += energy_remark(line)
    shares = [f"{row['op']} {100 * row['share']:.0f} %" for row in line.time_by_op[:_OPERATORS_SHOWN]]
    remarks.append("time: " + ", ".join(shares))
    remarks.append(": ".join([line.validity.status, "; ".join(line.validity.reasons)]).rstrip(": "))
    return remarks


def _comparison(compare: dict[str, Any], baseline: str) -> str:
    if compare["ratio_median"] is None:
        return f"against {baseline}: {compare['verdict']} ({compare['reason']})"
    low, high = compare["ci95"]
    text = (
        f"against {baseline}: {compare['verdict']}, {compare['ratio_median']:.2f} × ({low:.2f} – {high:.2f})"
    )
    return f"{text}; {compare['reason']}" if compare["reason"] else text
