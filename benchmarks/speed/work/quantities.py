"""What is measured of each kind of work: metrics as functions of one run of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from .loaded_work import Sample
from .timed_answer import TimedAnswer
from .timed_work import TimedGeneration, TimedImages, Workload


@dataclass(frozen=True)
class Quantity:
    """A metric as a function of one run of the work.

    Attributes:
        observed: the nanosecond series that the percentiles are taken from; each block's value when empty.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    value: Callable[[Sample], float]
    observed: str = ""


def quantities(workload: Workload) -> list[Quantity]:
    """What a workload measures. The first is the one on which two arms are compared."""
    if isinstance(workload, TimedGeneration):
        return _of_generation(_tokens_read(workload.prompt_tokens))
    if isinstance(workload, TimedAnswer):
        return _of_generation(
            _heard(workload.seconds) if workload.seconds else _tokens_read(workload.prompt_tokens)
        )
    return _of_batches(workload.batch, "images" if isinstance(workload, TimedImages) else "sentences")


def speeds(workload: Workload) -> list[str]:
    """The two quantities that tables show: decoding and prompts, or batches and single ones."""
    return [quantity.name for quantity in quantities(workload)[:2]]


def _tokens_read(prompt: int) -> Quantity:
    return Quantity("prefill_tps", "tok/s", "higher", lambda run: prompt * 1e9 / run["prefill"][0])


def _heard(seconds: float) -> Quantity:
    """The inverse real-time factor: seconds of sound in a second of work, the whole answer among it."""
    return Quantity("rtfx", "×", "higher", lambda run: seconds * 1e9 / (run["first"][0] + sum(run["tokens"])))


def _of_generation(reading: Quantity) -> list[Quantity]:
    return [
        Quantity("decode_tps", "tok/s", "higher", lambda run: 1e9 / fmean(run["tokens"])),
        reading,
        Quantity("ttft_ms", "ms", "lower", lambda run: run["first"][0] / 1e6, "first"),
        Quantity("tpot_ms", "ms", "lower", lambda run: fmean(run["tokens"]) / 1e6),
        Quantity("itl_ms", "ms", "lower", lambda run: median(run["tokens"]) / 1e6, "tokens"),
        Quantity("e2e_ms", "ms", "lower", lambda run: (run["first"][0] + sum(run["tokens"])) / 1e6),
    ]


def _of_batches(batch: int, what: str) -> list[Quantity]:
    return [
        Quantity(f"{what}_per_second", "1/s", "higher", lambda run: batch * 1e9 / run["batch"][0]),
        Quantity("latency_ms", "ms", "lower", lambda run: median(run["single"]) / 1e6, "single"),
    ]
