"""``profile_bundle``: latency, throughput, peak memory and energy of a bundle on this machine, as one
measurement line.

With a baseline the two run interleaved (ABBA) and the line carries the paired comparison; the baseline's own
line is recorded before it. Further versions may take turns with them. The roofline and the state of the
machine decide whether the numbers are valid.

The roofs over one bundle on this machine: bandwidth before and after the timed blocks, the roofline that
follows, and the account of every node against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...devices.bandwidth import SMALLEST, Bandwidth, measure_bandwidth
from ...devices.probe import Machine, probe
from ...devices.state import disturbance, read_state
from ...files.third_party_errors import shortages_are_typed
from ...runtime.bundle.bundle import Bundle
from ...runtime.session.needs import Needs
from ...runtime.session.session import require_provider
from ...terminal.progress import Progress, Silent
from ..records import record as records
from ..records.bundle_subject import describe_bundle
from ..records.record import Measurement
from .energy_windows import measure_energy
from .foreseen import apart, foreseen
from .latency import load_cold, measure_arms, per_block
from .latency_line import Conditions, MeasuredArm, measurement_line
from .paired import compare_rates
from .per_op import with_bandwidth
from .profile_task import ProfileTask, profile_needs
from .protocol import Arm, Protocol
from .roofline import Roofline, best, measure_both
from .sitting import Sitting, Watch
from .work.timed_work import quantities

# Over a working set of the weights' size, and over one that only main memory can hold; None of a bundle that
# has no roofline: an encoder, a manifest without sizes, and where memory is not the CPU's.
Bandwidths = tuple[Bandwidth, Bandwidth] | None


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
    """Measure ``bundle`` here and now; its line.

    Args:
        baseline: another bundle of the same kind, measured interleaved with it.
        beside: further versions, measured interleaved with both, a line each in ``record``.
        prompt_tokens, new_tokens: in the prompt and after it, exactly as many.
        batch: sentences of ``prompt_tokens`` that an encoder takes at once.
        threads: for the computation; this machine's budget when None.
        provider: ``cpu``, ``cuda``, ``openvino`` or ``tensorrt``.
        per_op: account for the time and the bytes of every node as well.
        energy: count the joules of the work too, where a counter can be read.
        protocol: how often and how long; by default ten blocks, each in a fresh process.
        record: a run file to which the lines are appended, the baseline's own first, with ``command``.
        max_memory: GB that it may need; never more than what is free.
        sitting: of a run that nobody watches, as ``--on`` makes it.

    Raises:
        InputError: kinds that differ, lengths that do not fit the model, fewer than one thread.
        BundleError, RefusedByPolicy: a bundle that does not match its manifest, or that crashes.
        OutOfResource: it does not fit this machine; a worker was killed, as happens when memory runs out.
        MissingDependency: this ONNX Runtime has no such provider.
    """
    progress = progress or Silent()
    if record is not None:
        records.refuse_foreign(record)
    every = [bundle, *beside, *(() if baseline is None else (baseline,))]
    how: dict[str, Any] = {"threads": threads, "provider": provider, "energy": energy, "per_op": per_op}
    lengths: dict[str, Any] = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "batch": batch}
    task = ProfileTask.opened(every, protocol=protocol, **lengths, **how)
    require_provider(provider)  # before a quiet machine is waited for
    needs = profile_needs(task)
    progress.note(needs.headline(needs.require(Path(record or "."), max_memory)))
    arms, conditions = _measure(task, command, progress, sitting)
    arms = _with_energy(arms, task, progress)
    paths = [one.path for one in task.bundles]
    load_cold(paths, [arm.samples for arm in arms], task.workload, progress, **task.session)
    reference = arms.pop() if baseline is not None else None
    before = [] if reference is None else [_line(reference, None, conditions)]
    found = [_line(arm, reference, conditions) for arm in arms]
    expected = foreseen(task.bundles[0].path, task.workload, task.threads, provider)
    for text in apart(expected, found[0].metrics):
        progress.note(text)
    for line in (*before, *found) if record is not None else ():
        records.append(str(record), line)
    return found[0]


def plan_profile(
    bundle: str | Path,
    *,
    baseline: str | Path | None = None,
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    batch: int = 32,
    threads: int | None = None,
    provider: str = "cpu",
    energy: bool = True,
    protocol: Protocol | None = None,
) -> Needs:
    """What :func:`profile_bundle` needs; raises what it does before it measures."""
    every = [bundle, *([] if baseline is None else [baseline])]
    lengths: dict[str, Any] = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "batch": batch}
    how: dict[str, Any] = {"threads": threads, "provider": provider, "energy": energy}
    return profile_needs(ProfileTask.opened(every, protocol=protocol, **lengths, **how))


def _measure(
    task: ProfileTask, command: str, progress: Progress, sitting: Sitting | None
) -> tuple[list[MeasuredArm], Conditions]:
    """Bandwidth before and after, the timed blocks between, and last the instrumented run of each arm."""
    machine = probe()
    kept = {} if sitting is None else {"done": sitting.done, "keep": sitting.keep}
    how: dict[str, Any] = {**task.session, **kept, "progress": progress}
    with Watch(sitting, task.threads, progress) as watch:
        found = [bandwidths(task, machine)]
        before = read_state()
        samples = measure_arms([one.path for one in task.bundles], task.workload, task.protocol, **how)
        after = read_state()
    found.append(bandwidths(task, machine, found[0]))
    arms: list[MeasuredArm] = []
    for index, opened in enumerate(task.bundles):
        with Arm(opened.path, task.workload, **task.session) as worker:
            operators = worker.operators(per_op=task.per_op)
        roofline = roofline_of(opened, [one[index] for one in found])
        account = account_of(opened, operators, roofline, task) if task.per_op else None
        arms.append(MeasuredArm(opened, samples[index], operators, roofline, account))
    fixed = (task.workload, task.protocol, len(arms), task.threads, task.provider, machine, before, after)
    return arms, Conditions(*fixed, command, watched=watch.state, doubts=tuple(watch.doubts))


def _with_energy(arms: list[MeasuredArm], task: ProfileTask, progress: Progress) -> list[MeasuredArm]:
    """The arms with what the meter of the provider's device counted, after all that is timed."""
    found = measure_energy(
        [arm.bundle.path for arm in arms],
        task.workload,
        task.protocol,
        task.meter,
        **task.session,
        progress=progress,
    )
    return [replace(arm, energy=energy) for arm, energy in zip(arms, found, strict=True)]


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


def bandwidths(task: ProfileTask, machine: Machine, before: Sequence[Bandwidths] = ()) -> list[Bandwidths]:
    """Of each bundle, now; memory's own is that of ``before`` where it was measured then."""
    cache = machine.cpu.last_level_cache_bytes
    known = next((pair[1] for pair in before if pair is not None), None)
    found: list[Bandwidths] = []
    for opened in task.bundles:
        size = _bytes_per_token(opened) if task.provider == "cpu" else None
        pair = measure_both(size, cache, threads=task.threads, known=known) if size else None
        known = known or (pair[1] if pair is not None else None)
        found.append(pair)
    return found


def roofline_of(bundle: Bundle, measured: Sequence[Bandwidths]) -> Roofline | None:
    """The roofline of ``bundle`` under the best of ``measured``; None where there is none."""
    size, found = _bytes_per_token(bundle), [pair for pair in measured if pair is not None]
    return best(found, size) if size and found else None


def account_of(
    bundle: Bundle, operators: dict[str, Any], roofline: Roofline | None, task: ProfileTask
) -> dict[str, Any]:
    """The account of every node against the bandwidth over a working set of the weights' size; that is the
    roofline's for a decoder. None is known where memory is not the CPU's.
    """
    bandwidth = roofline.at_weights if roofline is not None else None
    if bandwidth is None and task.provider == "cpu":
        size = describe_bundle(bundle).weight_bytes or 0
        bandwidth = measure_bandwidth(max(size, SMALLEST), threads=task.threads)
    rate = None if bandwidth is None else bandwidth.bytes_per_second
    return {
        "bandwidth": None if bandwidth is None else bandwidth.as_dict(),
        "phases": with_bandwidth(operators["accounts"], rate),
    }


def _bytes_per_token(bundle: Bundle) -> int | None:
    return describe_bundle(bundle).bytes_per_token if bundle.kind == "decoder" else None
