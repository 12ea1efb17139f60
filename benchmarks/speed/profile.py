"""``profile_bundle``: latency, throughput, peak memory and energy of a bundle on this machine, as one
measurement line.

With a baseline the two run interleaved (ABBA) and the line carries the paired comparison; the baseline's own
line is recorded before it. Further versions may take turns with them. The roofline and the state of the
machine decide whether the numbers are valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...devices.bandwidth import SMALLEST, Bandwidth, measure_bandwidth
from ...devices.energy import find_meter
from ...devices.probe import probe
from ...devices.state import disturbance, read_state
from ...errors import InputError
from ...foreign import shortages_are_typed
from ...runtime.bundle.bundle import Bundle
from ...runtime.session.needs import Needs
from ...runtime.session.session import device_of
from ...runtime.session.threads import thread_budget
from ...terminal import Progress, Silent
from ..records import record as records
from ..records.bundle_subject import describe_bundle
from ..records.record import Measurement
from .arm import Arm
from .energy_windows import measure_energy, uncounted
from .foreseen import apart, foreseen
from .latency import measure_arms, per_block, quantities
from .latency_line import Conditions, MeasuredArm, measurement_line
from .needs import profile_needs
from .paired import compare_rates
from .per_op import with_bandwidth
from .protocol import Protocol
from .roofline import Roofline, best, measure_both
from .sitting import Sitting, Watch
from .timed_work import Embedding, TimedGeneration, Workload


@shortages_are_typed()
def profile_bundle(
    bundle: str | Path,
    *,
    baseline: str | Path | None = None,
    beside: Sequence[str | Path] = (),
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    batch: int = 32,
    threads: int | None = None,
    provider: str = "cpu",
    per_op: bool = False,
    energy: bool = True,
    protocol: Protocol | None = None,
    record: str | Path | None = None,
    command: str = "",
    max_memory: float | None = None,
    progress: Progress | None = None,
    sitting: Sitting | None = None,
) -> Measurement:
    """Measure ``bundle`` here and now.

    Args:
        baseline: another bundle of the same kind, measured interleaved with it.
        beside: further versions, measured interleaved with both, a line each in ``record``.
        prompt_tokens: length of the prompt; for an encoder, of each sentence.
        new_tokens: generated after the prompt, exactly as many.
        batch: sentences per batch of an encoder.
        threads: for the computation; this machine's budget when None.
        provider: ``cpu``, ``cuda``, ``openvino`` or ``tensorrt``.
        per_op: account for the time and the bytes of every node as well.
        energy: count the joules of the work too, where a counter can be read.
        protocol: how often and how long; by default ten blocks, each in a fresh process.
        record: a run file to which the lines are appended, the baseline's own first.
        command: what reproduces the measurement, for the record.
        max_memory: GB that it may need; never more than what is free.
        sitting: of a run that nobody watches, as ``--on`` makes it.

    Returns:
        The bundle's line.

    Raises:
        InputError: kinds that differ, lengths that do not fit the model, fewer than one thread.
        BundleError, RefusedByPolicy: a bundle that does not match its manifest, or that crashes.
        OutOfResource: it does not fit this machine; a worker was killed, as happens when memory runs out.
    """
    progress, protocol = progress or Silent(), protocol or Protocol()
    if record is not None:
        records.refuse_foreign(record)
    threads = thread_budget() if threads is None else threads
    every = [bundle, *beside, *(() if baseline is None else (baseline,))]
    bundles, workload = _opened(every, prompt_tokens, new_tokens, batch, protocol)
    needs = profile_needs(bundles, workload, protocol, energy=energy)
    progress.note(needs.headline(needs.require(Path(record or "."), max_memory)))
    what = (bundles, workload, protocol, threads, provider, per_op, command, progress)
    arms, conditions = _measure(*what, sitting)
    arms = _with_energy(arms, conditions, progress, wanted=energy)
    reference = arms.pop() if baseline is not None else None
    lines = [_line(arm, reference, conditions) for arm in arms]
    for text in apart(foreseen(bundles[0].path, workload, threads, provider), lines[0].metrics):
        progress.note(text)
    if record is not None:
        for line in (*([] if reference is None else [_line(reference, None, conditions)]), *lines):
            records.append(record, line)
    return lines[0]


def plan_profile(
    bundle: str | Path,
    *,
    baseline: str | Path | None = None,
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    batch: int = 32,
    energy: bool = True,
    protocol: Protocol | None = None,
) -> Needs:
    """What :func:`profile_bundle` needs; raises what it does before it measures."""
    protocol, every = protocol or Protocol(), [bundle, *([] if baseline is None else [baseline])]
    bundles, workload = _opened(every, prompt_tokens, new_tokens, batch, protocol)
    return profile_needs(bundles, workload, protocol, energy=energy)


def _opened(
    paths: Sequence[str | Path], prompt_tokens: int, new_tokens: int, batch: int, protocol: Protocol
) -> tuple[list[Bundle], Workload]:
    """The bundles, checked, and what they are to do."""
    bundles = [Bundle.open(Path(path)) for path in paths]
    return bundles, workload_of(bundles, prompt_tokens, new_tokens, batch, protocol.seed)


def _measure(
    bundles: list[Bundle],
    workload: Workload,
    protocol: Protocol,
    threads: int,
    provider: str,
    per_op: bool,
    command: str,
    progress: Progress,
    sitting: Sitting | None,
) -> tuple[list[MeasuredArm], Conditions]:
    """Bandwidth before and after, the timed blocks between, and last the instrumented run of each arm."""
    machine = probe()
    last_level = machine.cpu.last_level_cache_bytes
    how: dict[str, Any] = {"threads": threads, "provider": provider, "progress": progress}
    if sitting is not None:
        how |= {"done": sitting.done, "keep": sitting.keep}
    with Watch(sitting, threads, progress) as watch:
        bandwidths = [_bandwidths(bundles, last_level, threads)] if provider == "cpu" else []
        before = read_state()
        samples = measure_arms([opened.path for opened in bundles], workload, protocol, **how)
        after = read_state()
    bandwidths += [_bandwidths(bundles, last_level, threads)] if provider == "cpu" else []
    arms: list[MeasuredArm] = []
    for index, opened in enumerate(bundles):
        with Arm(opened.path, workload, threads=threads, provider=provider) as worker:
            operators = worker.operators(per_op=per_op)
        roofline = _roofline(opened, [found[index] for found in bandwidths])
        account = _account(opened, operators, roofline, threads, provider) if per_op else None
        arms.append(MeasuredArm(opened, samples[index], operators, roofline, account))
    fixed = (workload, protocol, len(arms), threads, provider, machine, before, after, command)
    return arms, Conditions(*fixed, watched=watch.state, doubts=tuple(watch.doubts))


def _with_energy(
    arms: list[MeasuredArm], conditions: Conditions, progress: Progress, *, wanted: bool
) -> list[MeasuredArm]:
    """The arms with what the meter of the provider's device counted, after all that is timed."""
    if not wanted:
        return [replace(arm, energy=uncounted("it was not requested")) for arm in arms]
    found = measure_energy(
        [arm.bundle.path for arm in arms],
        conditions.workload,
        conditions.protocol,
        find_meter(device_of(conditions.provider)),
        threads=conditions.threads,
        provider=conditions.provider,
        progress=progress,
    )
    return [replace(arm, energy=energy) for arm, energy in zip(arms, found, strict=True)]


def workload_of(
    bundles: Sequence[Bundle], prompt_tokens: int, new_tokens: int, batch: int, seed: int
) -> Workload:
    """What is timed of these bundles; raises InputError where they cannot do the same work."""
    kinds = {opened.kind for opened in bundles}
    if len(kinds) > 1:
        raise InputError("a decoder and an encoder do not do the same work and cannot be compared")
    workload: Workload
    if kinds == {"decoder"}:
        workload = TimedGeneration(prompt_tokens, new_tokens, seed=seed)
    else:
        workload = Embedding(prompt_tokens, batch, seed=seed)
    for opened in bundles:
        workload.check(opened)
    if kinds == {"decoder"} and len({opened.decoder.vocab_size for opened in bundles}) > 1:
        raise InputError(
            "the two bundles have vocabularies of different sizes",
            why="a token of one is not a token of the other, so tokens per second do not compare",
        )
    return workload


def _bytes_per_token(bundle: Bundle) -> int | None:
    return describe_bundle(bundle).bytes_per_token if bundle.kind == "decoder" else None


def _bandwidths(
    bundles: list[Bundle], cache_bytes: int | None, threads: int
) -> list[tuple[Bandwidth, Bandwidth] | None]:
    sizes = [_bytes_per_token(opened) for opened in bundles]
    return [measure_both(size, cache_bytes, threads=threads) if size else None for size in sizes]


def _roofline(bundle: Bundle, measured: list[tuple[Bandwidth, Bandwidth] | None]) -> Roofline | None:
    """None for an encoder, for a manifest without sizes, and where memory is not the CPU's."""
    size, found = _bytes_per_token(bundle), [pair for pair in measured if pair is not None]
    return best(found, size) if size and found else None


def _account(
    bundle: Bundle, operators: dict[str, Any], roofline: Roofline | None, threads: int, provider: str
) -> dict[str, Any]:
    """The account of every node against the bandwidth over a working set of the weights' size; that is the
    roofline's for a decoder. None is known where memory is not the CPU's.
    """
    bandwidth = roofline.at_weights if roofline is not None else None
    if bandwidth is None and provider == "cpu":
        size = describe_bundle(bundle).weight_bytes or 0
        bandwidth = measure_bandwidth(max(size, SMALLEST), threads=threads)
    return {
        "bandwidth": None if bandwidth is None else bandwidth.as_dict(),
        "phases": with_bandwidth(
            operators["accounts"], None if bandwidth is None else bandwidth.bytes_per_second
        ),
    }


def _line(arm: MeasuredArm, baseline: MeasuredArm | None, conditions: Conditions) -> Measurement:
    """An arm's line, with the comparison where there is a baseline."""
    if baseline is None:
        return measurement_line(arm, conditions)
    return measurement_line(
        arm,
        conditions,
        compare=_compare(arm, baseline, conditions),
        baseline=describe_bundle(baseline.bundle),
    )


def _compare(subject: MeasuredArm, baseline: MeasuredArm, conditions: Conditions) -> dict[str, Any]:
    """The paired ratio of the main rate, and of each other metric that has a value per block."""
    noisy = bool(disturbance(conditions.before, conditions.after)[1])
    found: dict[str, Any] = {}
    for quantity in quantities(conditions.workload):
        rates = [
            [None if value is None else value if quantity.better == "higher" else 1 / value for value in arm]
            for arm in (per_block(subject.samples, quantity), per_block(baseline.samples, quantity))
        ]
        found[quantity.name] = compare_rates(*rates, noisy=noisy, seed=conditions.protocol.seed).as_dict()
    main = quantities(conditions.workload)[0].name
    return {"metric": main, **found[main], "by_metric": found}
