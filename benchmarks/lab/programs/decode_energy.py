"""Joules of a decoded token for several bundles, counted in turns; or why none were.

What counts them, and how, is :mod:`...speed.energy_windows`: a line of a table says what it says of a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ....devices.energy import Meter, NoMeter
from ....runtime.session.threads import thread_budget
from ...records.energy_record import Energy
from ...records.numerals import significant
from ...speed.energy_windows import energy_metrics, measure_energy, metric_name
from ...speed.protocol import Protocol
from ...speed.timed_work import TimedGeneration
from .interleaved import NEW_TOKENS, PROMPT

_JOULES = metric_name("decode", "token")


def decode_energies(
    bundles: Mapping[str, Path], meter: Meter | NoMeter, protocol: Protocol | None = None
) -> dict[str, Energy]:
    """Joules that ``meter`` counts of each of the decoders ``bundles``: a prompt of 128 tokens, 16 new ones.

    Prepacked weights are used where they were made; this makes none.

    Raises:
        EdgepressError: what a worker raised, or the manner of its death.
    """
    found = measure_energy(
        list(bundles.values()),
        TimedGeneration(PROMPT, NEW_TOKENS, seed=0),
        protocol or Protocol(),
        meter,
        threads=thread_budget(),
        cache=True,
    )
    return dict(zip(bundles, found, strict=True))


def joules(energy: Energy | None) -> str:
    """J of a decoded token in all, with what is doubtful of it; a dash where nothing was counted."""
    if energy is None or energy.kind is None:
        return "–"
    metric = energy_metrics(energy, seed=0)[0][_JOULES]
    if metric.value is None:
        return "–"
    doubt = metric.validity.status if metric.validity is not None else "valid"
    return significant(metric.value) + ("" if doubt == "valid" else f" ({doubt})")


def described(energies: Mapping[str, Energy]) -> str:
    """How energy was counted, or why it was not, for the notes below a table."""
    first = next(iter(energies.values()))
    if first.kind is None:
        return f"Energy: not measured: {first.in_words}."
    windows = f"{len(first.turns)} windows of at least {first.window_s:g} s"
    return f"J: {', '.join(first.domains)} ({first.method}), {windows} of each bundle, all in turns."
