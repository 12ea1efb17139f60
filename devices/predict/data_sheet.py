"""Predictions from a data sheet: the rate of decoding follows from the bandwidth that is claimed, and a share
of it that measured machines reach. What no sheet says is not predicted.
"""

from __future__ import annotations

from ..target import Share, Target
from .graph_operations import Run
from .memory import sizes
from .prediction import Prediction, Quantity
from .subject import Subject
from .workload import PredictedWork

# The share of the bandwidth at which weights are read when a token is decoded: the median of two processors
# that were measured, and what nine in ten lines of one are within when it is left out. Both are printed by
# `python -m edgepress.benchmarks.lab.programs.sheet_error`.
SHARE, BAND = 0.49, 0.53
_NO_PEAK = "its sheet does not say what kernels reach"
MODELLED = "joules are the sheet's power for as long as the work takes: modelled, not counted"
_NO_GPU = "no GPU was measured: the share is not known"


def share_of(target: Target) -> Share | None:
    """Of its bandwidth, what decoding reaches: its own, or that of processors; None of a GPU without one."""
    if target.share is not None or target.kind.endswith("gpu"):
        return target.share
    source = "median of two processors, from edgepress's raw lines (benchmarks/lab/results/raw)"
    return Share(
        value=SHARE,
        source=source,
        confidence="low",
        note=f"of the bandwidth, any processor: ± {100 * BAND:.0f} %",
    )


def modelled_joules(name: str, target: Target, rate: float | None, band: float, reason: str = "") -> Quantity:
    """Of a token or a text, by the sheet's power and a predicted ``rate`` per second, within ``band``."""
    power, top = target.power.value, target.power.up_to or target.power.value
    return Quantity(name, power / rate if rate else None, "J", max(band, top / power - 1), reason)


def _decoder(target: Target, roof: float, provider: str) -> tuple[list[Quantity], tuple[str, ...]]:
    """What follows from ``roof``, the tokens per second that the bandwidth allows."""
    share, reason = share_of(target), ""
    if share is None:
        reason = _NO_GPU
    elif provider != "cpu" and share is not target.share:
        reason = f"{provider} was not measured: the share is not known"
    rate = share.value * roof if share is not None and not reason else None
    found = [
        Quantity("decode_tps", rate, "tok/s", BAND, reason, roof),
        Quantity("tpot_ms", 1e3 / rate if rate else None, "ms", BAND, reason),
        Quantity("prefill_tps", None, "tok/s", BAND, _NO_PEAK),
        Quantity("ttft_ms", None, "ms", BAND, _NO_PEAK),
        modelled_joules("decode_j_per_token", target, rate, BAND, reason),
    ]
    said = f"bandwidth ÷ bytes of a token: no rate above {roof:,.0f} tok/s is possible"
    if rate is None:
        return found, (said,)
    return found, (said, MODELLED)


def predict_from_sheet(
    subject: Subject, target: Target, work: PredictedWork, check: str, provider: str = "cpu"
) -> Prediction:
    """What the figures of ``target`` allow to say of ``subject`` when ``provider`` runs it."""
    notes: tuple[str, ...] = ()
    if subject.kind == "decoder":
        token = subject.does(Run(1, work.prompt_tokens + work.new_tokens // 2)).working_set
        main, notes = _decoder(target, target.bandwidth.value * 1e9 / token, provider)
    else:
        names = (("sentences_per_second", "1/s"), ("latency_ms", "ms"))
        main = [Quantity(name, None, unit, BAND, _NO_PEAK) for name, unit in names]
    held = sizes(subject, work, 1, 0, provider)
    over = subject.weights > target.memory.value * 1e9
    over = over or (held[0].value is not None and held[0].value > target.memory.value * 1e9)
    notes += (f"it does not fit the memory of {target.memory.value:g} GB",) if over else ()
    return Prediction(
        subject=subject.name,
        target=target.name,
        basis="data sheet",
        source=f"{target.title}: {target.bandwidth.value:g} GB/s ({target.bandwidth.confidence} confidence, "
        f"{target.bandwidth.source})",
        threads=None,
        provider=provider,
        workload=work.as_dict(),
        quantities=(*main, *held),
        check=check,
        notes=(*subject.notes, *notes),
        artifact=subject.artifact,
    )
