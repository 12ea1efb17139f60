"""``Prediction``: what is expected of a model on a machine, with its basis, its band, and the command that
measures the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Basis = Literal["measured table", "measured table, not held against measurements", "data sheet"]


@dataclass(frozen=True)
class Quantity:
    """A number that is expected within ``band`` of itself, either way; ``value`` is None for a ``reason``,
    and ``most`` what is possible, where that is known.
    """

    name: str
    value: float | None
    unit: str
    band: float
    reason: str = ""
    most: float | None = None

    @property
    def low(self) -> float | None:
        """The least that the band allows."""
        return None if self.value is None else self.value * (1 - self.band)

    @property
    def high(self) -> float | None:
        """The most that the band allows; of what is not predicted the most that is possible."""
        return self.most if self.value is None else self.value * (1 + self.band)


@dataclass(frozen=True)
class Prediction:
    """Of one subject on one target.

    Attributes:
        subject: what is predicted, in words; workload: what it is to do; provider: what runs it.
        source: of the basis: the table's processor, runtime and age, or the data sheet's own.
        check: the command that measures the same quantities.
        notes: what lies beyond the table, and what was assumed.
        artifact: the identity of the bundle; empty of a plan.
    """

    subject: str
    target: str
    basis: Basis
    source: str
    threads: int | None
    workload: Mapping[str, Any]
    quantities: tuple[Quantity, ...]
    check: str
    notes: tuple[str, ...] = field(default=())
    artifact: str = ""
    provider: str = "cpu"

    def value(self, name: str) -> float | None:
        """The quantity ``name``; None where it is not predicted."""
        return next((one.value for one in self.quantities if one.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``predicted`` keeps it from being taken for a measurement."""
        return {
            "predicted": True,
            "subject": self.subject,
            "artifact": self.artifact,
            "target": self.target,
            "basis": self.basis,
            "source": self.source,
            "threads": self.threads,
            "provider": self.provider,
            "workload": dict(self.workload),
            "quantities": {
                one.name: {
                    "value": one.value,
                    "unit": one.unit,
                    "band": one.band,
                    "low": one.low,
                    "high": one.high,
                    "reason": one.reason,
                }
                for one in self.quantities
            },
            "check": self.check,
            "notes": list(self.notes),
        }
