"""The bars of the comparison of decoders, as ratios with a verdict.

Ours is one row, the default: the weights in 4 bits, embedding and head in 8, and a cache of float32; a row
with a head of 4 bits is held against peers that have one. A ratio is ours over the best peer's where more is
better, and the best peer's over ours where less is: at or above the target is met.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal

from .lines import DecoderComparison

OURS = "edgepress_onnx"
DEFAULT = (OURS, "w4-head8")
DECODE, BANDWIDTH = 1.25, 0.80
# By bits of the weights: how much faster than our 4 bits they decode.
FEWER_BITS = {3: 1.2, 2: 1.6}

Key = tuple[str, str]
Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class PeerBar:
    """One comparison: our row against the best peer's, and what the ratio must be."""

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
        *(bar for threads, length in settings for bar in _fewer_bits(found, threads, length)),
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
    own = [key for key in keys if key == DEFAULT] or [key for key in keys if key[0] == OURS]
    ours, mine = _best(found, own, number, most=rule.most)
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


def _fewer_bits(found: DecoderComparison, threads: int, length: int) -> Iterable[PeerBar]:
    """Our rows of fewer bits, each beside our 4 bits with the same head."""
    for key in found.keys:
        bits, head = found.bits(key)
        plain = (OURS, f"w4-head{head}")
        if key[0] != OURS or bits not in FEWER_BITS or plain not in found.keys:
            continue
        fast, slow = (found.rate("decode", one, threads, length) for one in (key, plain))
        if fast is None or slow is None:
            continue
        ours, other = f"{found.label(key)}: {_shown(fast)}", f"{found.label(plain)}: {_shown(slow)}"
        name = f"2. decode of {bits} bits against our 4, head {head}"
        yield PeerBar(name, _where(threads, length), ours, other, fast / slow, FEWER_BITS[bits])


def _prefill(found: DecoderComparison, threads: int, length: int) -> PeerBar:
    rule = _BarRule("3. prefill, best of 4 and 8 bits", _where(threads, length), _small)
    return _compare(found, rule, lambda key: found.rate("prefill", key, threads, length))


def _start_and_memory(found: DecoderComparison, threads: int) -> Iterable[PeerBar]:
    where = f"{threads} thread{'s' if threads > 1 else ''}"
    first = _BarRule("4. process start to first token, s", where, _small, most=False)
    yield _compare(found, first, lambda key: found.value("first_token_s", key, threads))
    memory = _BarRule("4. peak RSS, MB", where, _small, most=False)
    yield _compare(found, memory, lambda key: _megabytes(found.value("peak_rss_bytes", key, threads)))


def _megabytes(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _bandwidth(found: DecoderComparison, threads: int, length: int) -> Iterable[PeerBar]:
    """Of our default: bytes of weights read per second over the bandwidth that was measured beside it in the
    same round; the median over rounds.
    """
    beside = {line.round: line.bandwidth[threads] for line in found.rounds if threads in line.bandwidth}
    size = found.value("bytes_per_token", DEFAULT, threads)
    passes = found.rates("decode", DEFAULT, threads, length)
    rates = [(rate, beside[number]) for number, rate in passes if number in beside]
    if size is None or not rates:
        return
    moved = median(rate * size for rate, _ in rates) / 1e9
    roof = median(one for _, one in rates) / 1e9
    share = median(rate * size / one for rate, one in rates)
    ours, peer = f"{found.label(DEFAULT)}: {moved:.1f} GB/s", f"memory: {roof:.1f} GB/s"
    yield PeerBar("2. decode over bandwidth", _where(threads, length), ours, peer, share, BANDWIDTH)
