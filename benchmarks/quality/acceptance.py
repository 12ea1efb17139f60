"""Gates on quality: limits that a measurement must keep, so that a build fails when a model got worse."""

from dataclasses import dataclass
from typing import Any, Literal

from ...errors import GateFailed, InputError
from ..records.record import Measurement
from .subgroups.measure_slices import FLIPS, most_flips

_MISSING_OUTPUTS = 'give a .jsonl text with an "input" and an "output" in each row'


@dataclass(frozen=True)
class Gate:
    """``metric`` must be at most (``max``) or at least (``min``) ``limit``; the limit itself passes."""

    metric: str
    bound: Literal["max", "min"]
    limit: float

    def check(self, measurement: Measurement) -> dict[str, Any]:
        """The gate with the measured ``value`` and whether it ``passed``; of slices also the ``group``."""
        metric = measurement.metrics.get(self.metric)
        if metric is None or metric.value is None:
            raise InputError(
                f"there is no {self.metric} to hold against a limit",
                why=f"a {measurement.subject.kind} is measured by {', '.join(sorted(measurement.metrics))}",
                fix=_MISSING_OUTPUTS if measurement.workload.get("outputs", "given") != "given" else "",
            )
        value = metric.value
        passed = value <= self.limit if self.bound == "max" else value >= self.limit
        flips = most_flips((measurement.compare or {})["slices"]) if self.metric == FLIPS else None
        return {
            "metric": self.metric,
            "bound": self.bound,
            "limit": self.limit,
            "value": value,
            "passed": passed,
            **({} if flips is None else {"group": flips[0]["group"]}),
        }


def failure(checked: list[dict[str, Any]]) -> GateFailed | None:
    """One error for all gates that did not pass, or None."""
    failed = [gate for gate in checked if not gate["passed"]]
    if not failed:
        return None
    words = {"max": "above", "min": "below"}
    parts = [
        f"{g['metric']}{' of ' + g['group'] if 'group' in g else ''} {g['value']:.4g} is {words[g['bound']]} "
        f"{g['limit']:g}"
        for g in failed
    ]
    return GateFailed(
        "; ".join(parts),
        why="the model differs from its original more than the limit allows",
        fix="use more bits, a smaller group size, or GPTQ with more calibration text",
    )
