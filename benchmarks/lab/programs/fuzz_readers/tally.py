"""What became of the mutants of a reader, and how long each reader goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

# A reader that fails more often than this has one fault, and the rest of its time finds it again.
MOST_FAILURES = 20


@dataclass
class Tally:
    """What became of the mutants of a reader; ``failures`` by seed, of what was neither read nor refused."""

    seconds: float = 0.0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def mutants(self) -> int:
        """How many there were."""
        return self.read + sum(self.refused.values()) + len(self.failures)

    def add(self, other: Tally) -> None:
        """Take in what another process found."""
        self.seconds += other.seconds
        self.read += other.read
        self.refused += other.refused
        self.failures |= other.failures

    def row(self, name: str) -> list[str]:
        """A line of the table."""
        refused = ", ".join(f"{kind} {count}" for kind, count in self.refused.most_common())
        rate = self.mutants / max(self.seconds, 1e-9)
        counts = [self.mutants, self.read, sum(self.refused.values()), len(self.failures)]
        return [name, *(f"{count:,}" for count in counts), f"{rate:,.0f}", refused]


def share_out(tallies: Mapping[str, Tally], seconds: float, most: int) -> dict[str, float]:
    """How long each reader goes on, of ``seconds`` in all: as long as gives all that still go on as many
    mutants more, ``most`` together with those that they had.
    """
    costs = {
        name: tally.seconds / tally.mutants
        for name, tally in tallies.items()
        if 0 < tally.mutants < most and len(tally.failures) < MOST_FAILURES
    }
    more = seconds / max(sum(costs.values()), 1e-9)
    return {name: cost * min(more, most - tallies[name].mutants) for name, cost in costs.items()}
