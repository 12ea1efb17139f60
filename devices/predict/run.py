"""``Run``: one run of a graph, and ``Operations``: what it does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..kernel_table.operation import Operation


@dataclass(frozen=True)
class Run:
    """One run of a graph.

    Attributes:
        rows: tokens that go in; past: tokens in the cache before them; kept: positions that logits are for.
        length: tokens of each text, image or sound that an encoder reads, or that a decoder looks back at.
    """

    rows: int
    past: int = 0
    kept: int = 1
    length: int = 0


@dataclass
class Operations:
    """What a run does.

    Attributes:
        counts: operations, each with how often it is executed.
        nodes: all nodes, those that hardly compute among them.
        assumed: operators that were not measured and count as a sum of the same size.
        taken: operators that were not measured and count as another of the same size, by their names.
        packed: bytes of weights that the runtime keeps in an order of its own, beside the file.
        attended: tokens that the first attention reads, of all texts, images or sounds.
    """

    counts: Counter[Operation] = field(default_factory=Counter)
    nodes: int = 0
    assumed: set[str] = field(default_factory=set)
    taken: dict[str, str] = field(default_factory=dict)
    packed: int = 0
    attended: int = 0

    @property
    def working_set(self) -> int:
        """Bytes of weights and caches that the run reads."""
        return sum(count * one.read for one, count in self.counts.items())

    @property
    def small(self) -> int:
        """Nodes that are not among the operations."""
        return self.nodes - sum(self.counts.values())
