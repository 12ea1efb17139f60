"""The measurement line of one level of load: its metrics, its conditions, and whether they may be used."""

from statistics import fmean
from typing import Any

from ...devices.probe import Machine
from ...devices.state import State, disturbance
from ..records.record import Measurement, Metric, Subject, Validity
from ..records.summary import summarize
from ..speed.latency import half_width
from ..speed.latency_line import ENOUGH_BLOCKS
from ..speed.protocol import WIDE, Protocol
from .load import Level, LoadAsked
from .server import Server


def served_line(
    subject: Subject,
    server: Server,
    level: Level,
    asked: LoadAsked,
    machine: Machine,
    states: tuple[State, State],
    command: str,
) -> Measurement:
    """The line of ``level``; ``states`` are of the machine before and after it."""
    metrics, samples = _metrics(level, server, asked.protocol)
    happened, doubts = disturbance(*states)
    before, after = (state.model_dump(mode="json") for state in states)
    return Measurement(
        command=command,
        subject=subject,
        workload=_workload(level, asked),
        runtime=_runtime(server),
        device=machine.model_dump(mode="json"),
        state={"before": before, "after": after, "between": happened},
        protocol=_protocol(level, asked.protocol, metrics["ttft_ms"].n),
        samples=samples,
        metrics=metrics,
        validity=Validity.of([], [*doubts, *_doubts(metrics)]),
    )


def _workload(level: Level, asked: LoadAsked) -> dict[str, Any]:
    return {
        "kind": "generate",
        "scenario": "server",
        "batch": 1,
        "concurrency": level.concurrency,
        "prompt_tokens": asked.prompt_tokens,
        "new_tokens": asked.new_tokens,
        "sampling": "greedy",
        "seed": asked.protocol.seed,
        "includes": {"tokenize": False, "sample": True, "load": False, "http": True},
    }


def _protocol(level: Level, protocol: Protocol, requests: int) -> dict[str, Any]:
    fewest, most = protocol.blocks, protocol.most_seconds
    return {
        "requests": requests,
        "seconds": level.ended - level.began,
        "windows": protocol.blocks,
        "order": "a closed loop: each stream sends its next request when its last is answered",
        "warm_up": "the first request of each stream",
        "stop_rule": f"{fewest} requests, one a stream, then up to 100 for {most:g} s",
        "timer": "perf_counter",
        "load": "from the start of the server's process to its first answer",
        "rss_method": "sum over the server's processes, once a second",
        "seed": protocol.seed,
    }


def _doubts(metrics: dict[str, Metric]) -> list[str]:
    """Why the numbers may be off, beside what happened on the machine."""
    requests, spread = metrics["ttft_ms"].n, half_width(metrics["output_tps"])
    if requests < ENOUGH_BLOCKS:
        return [f"only {requests} requests: at least {ENOUGH_BLOCKS} make an interval"]
    if spread > WIDE:
        return [f"noisy: the interval of the median throughput is ± {100 * spread:.0f} % wide"]
    return []


def _metrics(
    level: Level, server: Server, protocol: Protocol
) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """One value per request, of the throughput per window; percentiles of the time per token are over all."""
    gaps = [reply.gaps_s() for reply in level.replies]
    each = [1e3 * gap for one in gaps for gap in one]
    means = [1e3 * fmean(one) for one in gaps if one]
    found: dict[str, tuple[list[float], str, Any]] = {
        "output_tps": (level.rates(protocol.blocks), "tok/s", "higher"),
        "ttft_ms": ([1e3 * reply.first_s for reply in level.replies], "ms", "lower"),
        "tpot_ms": (means, "ms", "lower"),
        "decode_tps": ([1e3 / mean for mean in means], "tok/s", "higher"),
        "e2e_ms": ([1e3 * reply.seconds for reply in level.replies], "ms", "lower"),
        "load_ms": ([1e3 * server.start_s], "ms", "lower"),
        "rss_peak_bytes": ([float(level.resident)], "bytes", "lower"),
    }
    metrics = {
        name: summarize(
            values, unit, better, observed=each if name == "tpot_ms" else None, seed=protocol.seed
        )
        for name, (values, unit, better) in found.items()
    }
    return metrics, {name: [round(value, 4) for value in values] for name, (values, _, _) in found.items()}


def _runtime(server: Server) -> dict[str, Any]:
    """The engine as it was started and as it says it runs; names of this run alone are left out."""
    task = server.task
    names = {str(task.checkpoint): "CHECKPOINT", task.model: "NAME", str(task.port): "PORT"}
    return {
        "name": server.engine.EXECUTABLE,
        "version": server.version,
        "threads": task.threads,
        "arguments": [names.get(word, word) for word in server.engine.command("PROGRAM", task)[1:]],
        "variables": server.engine.variables(task),
        **server.engine.settings(server.log),
    }
