"""The roofline: decoding one token at batch 1 reads every weight once, so bandwidth ÷ bytes per token is
the ceiling.

Williams, Waterman, Patterson, "Roofline", CACM 2009. The bandwidth is measured on the spot, over a
working set as large as the weights: a small model may live in the last-level cache, and the roof of main
memory would call its honest rate impossible. A rate above 1.05 × the ceiling is a measuring error,
whatever its cause, and marks the run invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...devices.bandwidth import SMALLEST, Bandwidth, beyond_cache, measure_bandwidth
from ..records.record import Metric

TOLERANCE = 1.05


@dataclass(frozen=True)
class Roofline:
    """A ceiling on decode tokens per second, from the best bandwidth seen near the weights' size."""

    bytes_per_token: int
    at_weights: Bandwidth
    at_memory: Bandwidth

    @property
    def ceiling(self) -> float:
        """Tokens per second that the measured bandwidth allows."""
        return self.at_weights.bytes_per_second / self.bytes_per_token

    def describe(self, decode: Metric) -> dict[str, Any]:
        """JSON for the record; ``fraction`` is the part of the ceiling that decoding reaches."""
        return {
            "bytes_per_token": self.bytes_per_token,
            "ceiling_tps": self.ceiling,
            "fraction": None if decode.value is None else decode.value / self.ceiling,
            "tolerance": TOLERANCE,
            "bandwidth_at_weights": self.at_weights.as_dict(),
            "bandwidth_of_memory": self.at_memory.as_dict(),
        }


def impossible(rate: float | None, ceiling: float) -> str | None:
    """Why ``rate`` cannot be true, or None when it can."""
    if rate is None or rate <= TOLERANCE * ceiling:
        return None
    return f"impossible: {rate:.0f} tok/s is above {TOLERANCE} × the ceiling of {ceiling:.0f} tok/s"


def measure_both(
    bytes_per_token: int, cache_bytes: int | None, *, threads: int
) -> tuple[Bandwidth, Bandwidth]:
    """Bandwidth over a working set of the weights' size, and over one that only main memory can hold."""
    memory = beyond_cache(cache_bytes)
    at_memory = measure_bandwidth(memory, threads=threads)
    size = max(bytes_per_token, SMALLEST)
    return (at_memory if size >= memory else measure_bandwidth(size, threads=threads)), at_memory


def best(measured: Sequence[tuple[Bandwidth, Bandwidth]], bytes_per_token: int) -> Roofline:
    """The roofline under the best of several measurements: noise lowers a bandwidth and never raises it."""
    return Roofline(
        bytes_per_token,
        at_weights=max((pair[0] for pair in measured), key=lambda found: found.bytes_per_second),
        at_memory=max((pair[1] for pair in measured), key=lambda found: found.bytes_per_second),
    )
