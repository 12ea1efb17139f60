"""The conditions of a measurement in words: text, lengths, threads, and how it was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .record import Measurement

LONGEST_WORD = 80
TITLES = {"quality": "Quality", "generate": "Latency", "embed": "Latency"}


def describe(line: Measurement) -> str:
    """One line of text for the workload and, for latency, the threads and the processor."""
    kind = str(line.workload.get("kind"))
    if kind == "quality":
        parts = _quality(line.workload)
    else:
        parts = _generation(line.workload) if kind == "generate" else _embedding(line.workload)
        threads = line.runtime.get("threads")
        parts += [f"{threads} thread{'s' * (threads != 1)}"] if isinstance(threads, int) else []
        parts += [machine(line)] if line.device else []
    return f"{TITLES.get(kind, kind)}: {', '.join(parts)}"


def _quality(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"text {workload['text']}"] if workload.get("text") else []
    if workload.get("windows"):
        parts.append(f"{workload['windows']} windows of {workload.get('length', '?')} tokens")
    if workload.get("sentences"):
        parts.append(f"{workload['sentences']} sentences")
    pairs = workload.get("word_pairs")
    if isinstance(pairs, Mapping):
        parts += [f"{count} word pairs of {name}" for name, count in pairs.items()]
    return parts


def _generation(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"prompt of {workload['prompt_tokens']} tokens"] if workload.get("prompt_tokens") else []
    parts += [f"{workload['new_tokens']} new tokens"] if workload.get("new_tokens") else []
    return [*parts, f"batch {workload.get('batch', '?')}"]


def _embedding(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"sentences of {workload['length']} tokens"] if workload.get("length") else []
    return [*parts, f"batches of {workload.get('batch', '?')}"]


def machine(line: Measurement) -> str:
    """The processor, or the operating system where the processor is unknown."""
    cpu = line.device.get("cpu")
    name = cpu.get("model") if isinstance(cpu, Mapping) else cpu
    return str(name or line.device.get("os") or "an unnamed machine")


# Protocol and state as words: the numbers that say whether a reading can be trusted.
PROTOCOL = {
    "interval": "interval: {}",
    "blocks": "{} blocks",
    "processes": "{} processes",
    "order": "order {}",
    "block_ms": "at least {} ms a block",
    "warmup_seconds": "warm-up {} s",
    "resamples": "{} resamples",
    "seed": "seed {}",
}
BETWEEN = {
    "other_cpu_pct": "other processes {} % of the CPUs",
    "steal_pct": "hypervisor took {} %",
    "frequency_change_pct": "frequency changed {} %",
}
AFTER = {"load": "load {}", "governor": "governor {}", "temperature_c": "{} °C"}


def conduct(line: Measurement) -> str:
    """How a line was measured and what the machine did meanwhile, in one sentence."""
    state = {key: value for key, value in line.state.items() if isinstance(value, Mapping)}
    parts = [*_words(PROTOCOL, line.protocol), *_words(BETWEEN, state.get("between", {}))]
    return ", ".join([*parts, *_words(AFTER, state.get("after", {}))])


def _words(phrases: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    known = {key: values[key] for key in phrases if isinstance(values.get(key), int | float | str)}
    return [
        phrases[key].format(f"{value:.3g}" if isinstance(value, float) else str(value)[:LONGEST_WORD])
        for key, value in known.items()
    ]
