"""What a measurement line says of the quantities that are bounded, by the keys of their budgets."""

from collections.abc import Sequence

from ..benchmarks.records.record import Measurement
from ..errors import MissingDependency
from .budgets import Budget
from .quantities import ENERGY, FIRST_TOKEN, QUANTITIES, RATES, Quantity


def qualities(line: Measurement, budgets: Sequence[Budget]) -> dict[str, float]:
    """The figures of quality, and of the worst group of each slice that a budget is about."""
    found = {}
    for quantity in QUANTITIES:
        value = _value(quantity, line) if quantity.of_quality else None
        if value is not None:
            found[quantity.name] = value
    from ..benchmarks.quality.subgroups.measure_slices import largest_kl  # imports torch

    for budget in budgets:
        if budget.slice is not None:
            found[budget.key] = largest_kl((line.compare or {})["slices"], budget.slice)
    return found


def originals(line: Measurement, budgets: Sequence[Budget]) -> dict[str, float]:
    """Those of the original in the same line."""
    own = (line.compare or {}).get("original", {})
    named = ((one.name, _metric(one, line)) for one in QUANTITIES if one.of_quality)
    found = {key: float(own[name]["value"]) for key, name in named if name is not None}
    return found | {one.key: 0.0 for one in budgets if one.slice is not None}


def of_device(name: str, line: Measurement, budgets: Sequence[Budget]) -> dict[str, float]:
    """The figures of a device; energy as counted, or that of a target's watts for as long as a token or
    sentence takes.
    """
    found: dict[str, float] = {}
    for quantity in QUANTITIES:
        value = _value(quantity, line) if quantity.on_device else None
        if value is not None:
            found[f"{quantity.name} on {name}"] = 1e-3 * value if quantity is FIRST_TOKEN else value
    for budget in budgets:
        if budget.quantity is ENERGY and budget.device == name:
            if budget.watts is not None:
                keys = (f"{rate.name} on {name}" for rate in RATES)
                found[budget.key] = budget.watts / next(found[key] for key in keys if key in found)
            elif budget.key not in found:
                raise no_meter(budget, line.energy.reason if line.energy else None)
    return found


def no_meter(budget: Budget, reason: str | None) -> MissingDependency:
    """The error of energy that nothing counts."""
    return MissingDependency(
        f"{budget.shown()}: no energy is counted there",
        why=reason or "",
        fix="model it by the power of a target: --max-energy 0.2J@raspberry-pi-5 (edgepress devices list)",
    )


def _value(quantity: Quantity, line: Measurement) -> float | None:
    name = _metric(quantity, line)
    return None if name is None else line.metrics[name].value


def _metric(quantity: Quantity, line: Measurement) -> str | None:
    """What a line calls a figure; None where it has none."""
    return next((name for name in quantity.metrics if name in line.metrics), None)
