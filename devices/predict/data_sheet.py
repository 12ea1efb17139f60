"""Predictions from a data sheet: the rate of decoding follows from the bandwidth that is claimed, and a share
of it that measured machines reach. What no sheet says is not predicted.
"""

from ..target import Share, Target
from .prediction import Prediction, Quantity, sizes
from .run import Run
from .subject import RATES, PredictedWork, Subject

# The share of the bandwidth at which weights are read when a token is decoded, by the bytes that a token
# reads: the median of the processors that were measured, and the band within which nine in ten lines of all
# lie, each predicted with the others' share. `python -m edgepress.benchmarks.lab.programs.sheet_error` prints
# them. No processor or kind of memory has a share of its own: all were virtual servers of memory that they
# do not name, and where a token reads much they are near each other.
LARGE = 128e6
SHARES = {"small": (0.58, 0.54), "large": (0.68, 0.28)}
_UNKNOWN = 0.5
_NO_PEAK = "its sheet does not say what kernels reach"
MODELLED = "joules are the sheet's power for as long as the work takes: modelled, not counted"
_UNLIKE = "the share of the bandwidth is of decoders that attend: no such model was measured"
_NO_GPU = "no GPU was measured: the share is not known"


def size_of(token: float) -> str:
    """The key of :data:`SHARES` for so many bytes that a token reads."""
    return "large" if token >= LARGE else "small"


def share_of(target: Target, size: str) -> Share | None:
    """Of its bandwidth, what decoding reaches with models of a ``size`` of :data:`SHARES`: its own, or that
    of processors; None of a GPU without one.
    """
    if target.share is not None or target.kind.endswith("gpu"):
        return target.share
    source = "median of the measured processors, from edgepress's raw lines (benchmarks/lab/results/raw)"
    share, band = SHARES[size]
    read = f"{'from' if size == 'large' else 'below'} {LARGE / 1e6:.0f} MB a token"
    return Share(
        value=share,
        source=source,
        confidence="low",
        note=f"of the bandwidth, any processor, {read}: ± {100 * band:.0f} %",
    )


def modelled_joules(name: str, target: Target, rate: float | None, band: float, reason: str = "") -> Quantity:
    """Of a token or a text, by the sheet's power and a predicted ``rate`` per second, within ``band``."""
    power, top = target.power.value, target.power.up_to or target.power.value
    return Quantity(name, power / rate if rate else None, "J", max(band, top / power - 1), reason)


def _decoder(
    subject: Subject, target: Target, token: float, provider: str
) -> tuple[list[Quantity], tuple[str, ...]]:
    """What follows from the bytes that a ``token`` reads, and the bandwidth."""
    roof, (_, band) = target.bandwidth.value * 1e9 / token, SHARES[size_of(token)]
    share, reason = share_of(target, size_of(token)), ""
    if share is None:
        reason = _NO_GPU
    elif provider != "cpu" and share is not target.share:
        reason = f"{provider} was not measured: the share is not known"
    rate = share.value * roof if share is not None and not reason else None
    found = [
        Quantity("decode_tps", rate, "tok/s", band, reason, roof),
        Quantity("tpot_ms", 1e3 / rate if rate else None, "ms", band, reason),
        *([Quantity("prefill_tps", None, "tok/s", _UNKNOWN, _NO_PEAK)] if subject.unit == "text" else []),
        Quantity("ttft_ms", None, "ms", _UNKNOWN, _NO_PEAK),
        modelled_joules("decode_j_per_token", target, rate, band, reason),
    ]
    said = f"bandwidth ÷ bytes of a token: no rate above {roof:,.0f} tok/s is possible"
    if rate is None:
        return found, (said,)
    return found, (said, MODELLED, *(() if subject.held else (_UNLIKE,)))


def predict_from_sheet(
    subject: Subject, target: Target, work: PredictedWork, check: str, provider: str = "cpu"
) -> Prediction:
    """What the figures of ``target`` allow to say of ``subject`` when ``provider`` runs it."""
    notes: tuple[str, ...] = ()
    if subject.kind != "encoder":
        read, half = work.read(subject), work.new_tokens // 2
        past = work.prompt_tokens + half if subject.reads is None else half
        token = subject.does(Run(1, past, length=read)).working_set
        main, notes = _decoder(subject, target, token, provider)
    else:
        names = ((RATES[subject.unit], "1/s"), ("latency_ms", "ms"))
        main = [Quantity(name, None, unit, _UNKNOWN, _NO_PEAK) for name, unit in names]
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
        workload=work.as_dict(subject),
        quantities=(*main, *held),
        check=check,
        notes=(*subject.notes, *notes),
        artifact=subject.artifact,
    )
