"""How a measurement is run: processes, warm-up by rule, blocks, and the order in which two arms take turns.

The statistics follow pyperf (many processes, a fixed warm-up, never "until it looks stable") and the ABBA
order of psychophysics: whatever drifts, drifts over both arms alike. The number of blocks is fixed
beforehand: a run never stops early because the result looks good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError

MIN_WARMUP_ITERATIONS = 3


@dataclass(frozen=True)
class Protocol:
    """The plan of one measurement, recorded with it.

    Attributes:
        blocks: timed blocks per arm, dealt evenly over the processes.
        processes: fresh processes per arm.
        block_ms: a block repeats its work until it has lasted this long.
        warmup_iterations, warmup_seconds: each process works untimed until both are reached.
        seed: of the prompts and the bootstrap.
    """

    blocks: int = 10
    processes: int = 5
    block_ms: float = 100.0
    warmup_iterations: int = MIN_WARMUP_ITERATIONS
    warmup_seconds: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.processes < 1:
            raise InputError(
                f"{self.blocks} blocks in {self.processes} processes measure nothing", fix="use at least 1"
            )
        if self.warmup_iterations < MIN_WARMUP_ITERATIONS:
            raise InputError(
                f"{self.warmup_iterations} warm-up iterations: at least {MIN_WARMUP_ITERATIONS} are needed"
            )

    @classmethod
    def quick(cls, seed: int = 0) -> Protocol:
        """A look, not a result to publish: six blocks in two processes."""
        return cls(blocks=6, processes=2, warmup_seconds=0.5, seed=seed)

    def shares(self) -> list[int]:
        """Blocks per process: as even as can be, none empty."""
        processes = min(self.processes, self.blocks)
        return [self.blocks // processes + (index < self.blocks % processes) for index in range(processes)]

    def describe(self, arms: int) -> dict[str, Any]:
        """JSON for the record."""
        return {
            **asdict(self),
            "processes": len(self.shares()),
            "order": "ABBA" if arms == 2 else "A",
            "stop_rule": "fixed number of blocks",
            "timer": "perf_counter_ns",
        }


def turns(pairs: int, arms: int) -> list[list[int]]:
    """Which arm runs when: one list per pair of blocks, ``[0, 1], [1, 0], [0, 1], …``; ``[0]`` each for
    one arm.
    """
    if arms == 1:
        return [[0] for _ in range(pairs)]
    return [[0, 1] if pair % 2 == 0 else [1, 0] for pair in range(pairs)]


def warm_up(
    work: Callable[[], object], *, iterations: int, seconds: float, clock: Callable[[], int]
) -> tuple[int, float]:
    """Call ``work`` until at least ``iterations`` calls **and** ``seconds`` have passed; returns what it
    came to.
    """
    start, done = clock(), 0
    while done < iterations or clock() - start < seconds * 1e9:
        work()
        done += 1
    return done, (clock() - start) / 1e9
