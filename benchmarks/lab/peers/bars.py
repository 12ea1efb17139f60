"""The bars of the comparison of decoders, as ratios with a verdict.

A ratio is ours over the best peer's where more is better, and the best peer's over ours where less is: at or
above the target is met. Equal bits are those of the weights and those of embedding and head.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from .lines import DecoderComparison

OURS = "edgepress_onnx"
DECODE, TWO_BITS, BANDWIDTH = 1.25, 1.4, 0.75

Key = tuple[str, str]
Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class PeerBar:
    """One comparison: our best row against the best peer's, and what the ratio must be."""

    name: str
    where: str
    ours: str
    peer: str
    ratio: float | None
    target: float

    @property
    def verdict(self) -> Verdict:
        """Met at the target or above."""
        if self.ratio is None:
            return "not measured"
        return "met" if self.ratio >= self.target else "missed"


def bars(found: DecoderComparison) -> list[PeerBar]:
    """Bars 1 to 4, in every setting that was measured."""
    settings = [(threads, length) for length in found.prompt_lengths for threads in found.threads]
    return [
        *(bar for threads, length in settings for bar in _decode(found, threads, length)),
        *(bar for threads, length in settings for bar in _two_bits(found, threads, length)),
        *(_prefill(found, threads, length) for threads, length in settings),
        *(bar for threads in found.threads for bar in _start_and_memory(found, threads)),
        *(bar for threads in found.threads for bar in _bandwidth(found, threads, found.prompt_lengths[0])),
    ]


def _best(
    found: DecoderComparison, keys: Iterable[Key], number: Callable[[Key], float | None], *, most: bool
) -> tuple[str, float | None]:
    """Label with value, and value, of the best of ``keys``."""
    values = [(key, value) for key in keys if (value := number(key)) is not None]
    if not values:
        return "–", None
    key, value = (max if most else min)(values, key=lambda pair: pair[1])
    return f"{found.label(key)}: {_shown(value)}", value


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class _BarRule:
    """What a bar compares: which rows, by their bits, and whether more is better."""

    name: str
    where: str
    fits: Callable[[tuple[int, int]], bool]
    target: float = 1.0
    most: bool = True


def _small(bits: tuple[int, int]) -> bool:
    return bits[0] in (4, 8)


def _compare(found: DecoderComparison, rule: _BarRule, number: Callable[[Key], float | None]) -> PeerBar:
    keys = [key for key in found.keys if rule.fits(found.bits(key))]
    ours, mine = _best(found, (key for key in keys if key[0] == OURS), number, most=rule.most)
    peer, theirs = _best(found, (key for key in keys if key[0] != OURS), number, most=rule.most)
    ratio = None if mine is None or theirs is None else (mine / theirs if rule.most else theirs / mine)
    return PeerBar(rule.name, rule.where, ours, peer, ratio, rule.target)


def _where(threads: int, length: int) -> str:
    return f"prompt {length}, {threads} thread{'s' if threads > 1 else ''}"


def _decode(found: DecoderComparison, threads: int, length: int) -> Iterable[PeerBar]:
    for head in (8, 4):
        rule = _BarRule(
            f"1. decode at equal bits: 4, embedding and head {head}",
            _where(threads, length),
            partial(operator.eq, (4, head)),
            DECODE,
        )
        yield _compare(found, rule, lambda key: found.rate("decode", key, threads, length))


def _two_bits(found: DecoderComparison, threads: int, length: int) -> Iterable[PeerBar]:
    mine = [key for key in found.keys if key[0] == OURS]
    for two in (key for key in mine if found.bits(key)[0] == 2):
        four = next((key for key in mine if found.bits(key) == (4, found.bits(two)[1])), None)
        if four is None:
            continue
        fast, plain = (found.rate("decode", key, threads, length) for key in (two, four))
        if fast is None or plain is None:
            continue
        ours, other = f"{found.label(two)}: {_shown(fast)}", f"{found.label(four)}: {_shown(plain)}"
        name = "1. decode of 2 bits against our 4"
        yield PeerBar(name, _where(threads, length), ours, other, fast / plain, TWO_BITS)


def _prefill(found: DecoderComparison, threads: int, length: int) -> PeerBar:
    rule = _BarRule("2. prefill, best of 4 and 8 bits", _where(threads, length), _small)
    return _compare(found, rule, lambda key: found.rate("prefill", key, threads, length))


def _start_and_memory(found: DecoderComparison, threads: int) -> Iterable[PeerBar]:
    where = f"{threads} thread{'s' if threads > 1 else ''}"
    first = _BarRule("3. process start to first token, s", where, _small, most=False)
    yield _compare(found, first, lambda key: found.value("first_token_s", key, threads))
    memory = _BarRule("3. peak RSS, MB", where, _small, most=False)
    yield _compare(found, memory, lambda key: _megabytes(found.value("peak_rss_bytes", key, threads)))


def _megabytes(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _bandwidth(found: DecoderComparison, threads: int, length: int) -> Iterable[PeerBar]:
    """Of our 4-bit rows: bytes of weights read per second over the best bandwidth measured in the run."""
    measured = [line.bandwidth[threads] for line in found.rounds if threads in line.bandwidth]
    for key in (key for key in found.keys if key[0] == OURS and found.bits(key)[0] == 4):
        rate = found.rate("decode", key, threads, length)
        size = found.value("bytes_per_token", key, threads)
        if rate is None or size is None or not measured:
            continue
        moved, roof = rate * size / 1e9, max(measured) / 1e9
        ours, peer = f"{found.label(key)}: {moved:.1f} GB/s", f"memory: {roof:.1f} GB/s"
        yield PeerBar(
            "4. decode over bandwidth", _where(threads, length), ours, peer, moved / roof, BANDWIDTH
        )
