"""The measurement line of one arm: its metrics, its conditions, and whether the numbers may be used."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from ...devices.probe import ONNXRUNTIMES, Machine, installed
from ...devices.state import State, disturbance
from ...runtime.bundle.bundle import Bundle
from ...runtime.session.session import BEHIND, PROVIDERS, device_of
from ..records.bundle_subject import describe_bundle, operators_of
from ..records.energy_metrics import energy_metrics
from ..records.energy_record import Energy
from ..records.record import Measurement, Metric, Subject, Validity
from .latency import ArmSamples, half_width, summarize_arm
from .protocol import WIDE, Protocol, timer_overhead_ns
from .roofline import Roofline, impossible
from .work.timed_work import Workload, quantities

# Fewer blocks than this, and the numbers are a hint.
ENOUGH_BLOCKS = 5
# The part of the time in kernels that may be spent on another provider than the one asked for.
MISPLACED_SHARE = 0.05
_TIME_BY_OP = "one more run under the runtime's profiler, which slows every node"
_LAUNCHES = "; of a GPU what the processor does for a node: its kernels run on when the node has ended"
_NAMED = 8


@dataclass(frozen=True)
class Conditions:
    """What the lines of one call share."""

    workload: Workload
    protocol: Protocol
    arms: int
    threads: int
    provider: str
    machine: Machine
    before: State
    after: State
    command: str
    watched: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredArm:
    """What belongs to one bundle. ``operators`` is the trace's summary; an encoder has no roofline;
    ``per_op`` is the account of each node, where it was asked for; ``energy`` is what a counter counted, or
    why none did.
    """

    bundle: Bundle
    samples: ArmSamples
    operators: dict[str, Any]
    roofline: Roofline | None
    per_op: dict[str, Any] | None = None
    energy: Energy | None = None


def measurement_line(
    arm: MeasuredArm,
    conditions: Conditions,
    *,
    compare: dict[str, Any] | None = None,
    baseline: Subject | None = None,
) -> Measurement:
    """Everything about one arm as one line; ``compare`` and ``baseline`` only for the arm that is judged."""
    workload, protocol = conditions.workload, conditions.protocol
    metrics, samples = summarize_arm(arm.samples, workload, seed=protocol.seed)
    counted, windows = energy_metrics(arm.energy, seed=protocol.seed) if arm.energy else ({}, {})
    happened, reasons = disturbance(conditions.before, conditions.after)
    return Measurement(
        command=conditions.command,
        subject=describe_bundle(arm.bundle),
        baseline=baseline,
        workload=workload.describe(arm.bundle),
        runtime=_runtime(arm, conditions),
        device=conditions.machine.model_dump(mode="json"),
        state={
            "before": conditions.before.model_dump(mode="json"),
            "after": conditions.after.model_dump(mode="json"),
            "between": happened,
            **conditions.watched,
        },
        protocol={
            **protocol.describe(conditions.arms, len(arm.samples.blocks)),
            "warm_ups": arm.samples.warm_ups,
            "runs_per_block": [None if runs is None else len(runs) for runs in arm.samples.blocks],
            "timer_overhead_ns": timer_overhead_ns(),
            "rss_method": arm.samples.rss_method,
            "load": "from the manifest on disk to a session and tokenizer; libraries imported before",
            "time_by_op": _TIME_BY_OP + ("" if device_of(conditions.provider) == "cpu" else _LAUNCHES),
        },
        samples=samples | windows,
        metrics={**metrics, "device_bytes": _device_bytes(arm.bundle), **counted},
        compare=compare,
        roofline=arm.roofline.describe(metrics["decode_tps"]) if arm.roofline else None,
        time_by_op=arm.operators["time_by_op"],
        per_op=arm.per_op,
        energy=arm.energy,
        validity=_validity(arm, conditions, metrics, reasons),
    )


def _device_bytes(bundle: Bundle) -> Metric:
    """Of the bundle's folder now that it ran: what was shipped, and what running it has left there."""
    stored = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    return Metric(value=float(stored), unit="bytes", n=1, better="lower")


def _runtime(arm: MeasuredArm, conditions: Conditions) -> dict[str, Any]:
    return {
        "name": "onnxruntime",
        "version": version(next(iter(installed(*ONNXRUNTIMES)))),
        "distributions": installed(*ONNXRUNTIMES),
        "threads": conditions.threads,
        "inter_op_threads": 1,
        "providers_requested": [PROVIDERS[conditions.provider]],
        "providers": arm.samples.providers,
        "placement": arm.operators["placement"],
        **operators_of(arm.bundle),
    }


def _validity(
    arm: MeasuredArm, conditions: Conditions, metrics: dict[str, Metric], disturbances: list[str]
) -> Validity:
    main = metrics[quantities(conditions.workload)[0].name]
    wrong = [*_impossibilities(arm, main), *_misplaced(arm, conditions.provider)]
    if conditions.machine.emulated:
        wrong.append("emulated: the times are those of an emulator, not of such a processor")
    return Validity.of(wrong, [*conditions.doubts, *disturbances, *_doubts(arm, main)])


def _impossibilities(arm: MeasuredArm, main: Metric) -> list[str]:
    if main.value is None:
        return ["no block could be used: the machine slept in all of them"]
    if arm.roofline is None:
        return []
    # The fastest block is held against the fastest bandwidth: like against like.
    reason = impossible(main.max, arm.roofline.ceiling)
    return [reason] if reason else []


def _misplaced(arm: MeasuredArm, provider: str) -> list[str]:
    """Work that ran elsewhere than on the provider that was asked for, and those that stand behind it. Nodes
    that compute are named; shapes, masks and ids may stay on the CPU, as long as they take no time.
    """
    wanted, reasons = PROVIDERS[provider], []
    for place in arm.operators["placement"]:
        if place["provider"] in (wanted, *BEHIND.get(provider, ())):
            continue
        nodes = place.get("computing", [])
        if nodes or place["share"] > MISPLACED_SHARE:
            named = ", ".join(nodes[:_NAMED]) or ", ".join(place["ops"])
            more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
            share = f"{100 * place['share']:.0f} % of the time"
            reasons.append(f"{share} ran on {place['provider']}, not on {wanted}: {named}{more}")
    return reasons


def _doubts(arm: MeasuredArm, main: Metric) -> list[str]:
    doubts: list[str] = []
    slept = sum(runs is None for runs in arm.samples.blocks)
    if slept:
        doubts.append(
            f"the machine slept during {slept} of {len(arm.samples.blocks)} blocks, which are left out"
        )
    if main.n < ENOUGH_BLOCKS:
        blocks = "block" if main.n == 1 else "blocks"
        doubts.append(f"only {main.n} {blocks}: at least {ENOUGH_BLOCKS} are needed for an interval")
    elif main.value and half_width(main) > WIDE:
        doubts.append(f"noisy: the interval of the median is ± {100 * half_width(main):.0f} % wide")
    return doubts
