"""What windows of energy come to: joules of a token or sentence, in all and above idle, and what speaks
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .energy_record import IDLE, Energy, EnergyWindow
from .record import Metric, Validity
from .summary import summarize

# A counter is late by up to one step at each end of a window: 2 % at the most.
STEPS = 50
ENOUGH_WINDOWS = 3
# Windows of one arm that differ by more than this part of their median say little.
WIDE = 0.10
IDLE_WATTS = "idle_w"


def metric_name(phase: str, unit: str, *, net: bool = False) -> str:
    """``decode_j_per_token``, or ``decode_j_per_token_net``: less what idleness would have taken."""
    return f"{phase}_j_per_{unit}{'_net' * net}"


def energy_metrics(energy: Energy, *, seed: int) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """The metrics and the values they rest on, one of each turn; none where nothing was counted."""
    if energy.kind is None:
        return {}, {}
    metrics: dict[str, Metric] = {}
    samples: dict[str, list[float]] = {}

    def add(name: str, unit: str, windows: Sequence[str], value: Callable[..., float]) -> None:
        whole = [turn for turn in energy.turns if all(window in turn for window in windows)]
        samples[name] = [value(*(turn[window] for window in windows)) for turn in whole]
        metrics[name] = summarize(samples[name], unit, "lower", seed=seed)
        metrics[name].validity = _validity(energy, samples[name])

    for phase, unit in energy.units.items():
        add(metric_name(phase, unit), f"J/{unit}", [phase], _each)
        add(metric_name(phase, unit, net=True), f"J/{unit}", [phase, IDLE], _above)
    if energy.units:
        add(IDLE_WATTS, "W", [IDLE], _watts)
    return metrics, samples


def _watts(window: EnergyWindow) -> float:
    return window.joules / window.seconds


def _each(window: EnergyWindow) -> float:
    return window.joules / window.units


def _above(window: EnergyWindow, idle: EnergyWindow) -> float:
    return (window.joules - _watts(idle) * window.seconds) / window.units


def _validity(energy: Energy, values: Sequence[float]) -> Validity:
    wrong = [] if values else ["the machine slept in every window"]
    still = sum(window.joules == 0 for turn in energy.turns for window in turn.values())
    if still:
        wrong.append(f"impossible: the energy counter stood still in {still} windows")
    elif any(value <= 0 for value in values):
        wrong.append("impossible: the work took no more than idleness")
    return Validity.of(wrong, [*energy.disturbances, *_doubts(values)])


def _doubts(values: Sequence[float]) -> list[str]:
    if not values:
        return []
    if len(values) < ENOUGH_WINDOWS:
        windows = "window" if len(values) == 1 else "windows"
        return [f"only {len(values)} {windows} of energy: at least {ENOUGH_WINDOWS} are needed"]
    middle = sorted(values)[len(values) // 2]
    spread = (max(values) - min(values)) / abs(middle) if middle else 0.0
    return [f"noisy: windows of energy differ by {100 * spread:.0f} %"] if spread > WIDE else []
