"""The columns of the results: which numbers a decoder and an encoder show, and with how many digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import numerals


@dataclass(frozen=True)
class Column:
    """A column: the metric it shows and how numbers are written; ``metric`` is None for size and ratio."""

    key: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    write: Callable[[float], str]
    metric: str | None


def _column(
    key: str, title: str, unit: str, better: Literal["lower", "higher"], write: Callable[[float], str]
) -> Column:
    return Column(key, title, unit, better, write, None if key in ("size", "ratio") else key)


def _short(decimals: int) -> Callable[[float], str]:
    return lambda value: numerals.fixed(value, decimals)


SIZE = _column("size", "size", "MB", "lower", numerals.megabytes)
RATIO = _column("ratio", "smaller", "×", "higher", lambda value: numerals.significant(value, 2))
RSS = _column("rss_peak_bytes", "peak RSS", "MB", "lower", numerals.megabytes)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "decoder": (
        SIZE,
        RATIO,
        _column("perplexity", "perplexity", "", "lower", numerals.perplexity),
        _column("kl", "KL", "nats", "lower", _short(3)),
        _column("top1_agreement", "top-1", "%", "higher", numerals.percent),
        _column("decode_tps", "decode", "tok/s", "higher", numerals.significant),
        _column("prefill_tps", "prefill", "tok/s", "higher", numerals.significant),
        RSS,
    ),
    "encoder": (
        SIZE,
        RATIO,
        _column("cosine", "cosine", "", "higher", _short(4)),
        _column("spearman_wordsim353", "WordSim", "ρ", "higher", _short(3)),
        _column("spearman_simlex999", "SimLex", "ρ", "higher", _short(3)),
        _column("sentences_per_second", "speed", "sent/s", "higher", numerals.significant),
        _column("latency_ms", "latency", "ms", "lower", numerals.significant),
        RSS,
    ),
}
FRONT: dict[str, tuple[tuple[str, ...], str]] = {
    "decoder": (("size", "kl", "decode_tps"), "size, KL and decoding speed"),
    "encoder": (("size", "cosine", "sentences_per_second"), "size, cosine and speed"),
}
