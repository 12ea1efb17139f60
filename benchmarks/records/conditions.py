"""The conditions of a measurement in words: machine, runtimes, text, lengths, threads, and how it was run.

Numbers as people read them: as many digits as they carry, thin thousands, one unit for a column.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...files.limits import threads_in_words
from .record import Measurement

LONGEST = 400
# What changes from line to line on one machine, and the lists that have a place of their own.
PASSING = ("available", "placement", "nodes_by_provider")
THIN = "\u202f"  # no line breaks there


@dataclass(frozen=True)
class Facts:
    """A titled list of names and values, for instance one machine."""

    title: str
    items: tuple[tuple[str, str], ...]


def environments(lines: Sequence[Measurement]) -> list[Facts]:
    """Each distinct machine and each distinct runtime once."""
    found = []
    for title, values in (
        ("Machine", [line.device for line in lines]),
        ("Runtime", [{**line.runtime, "measured with": _tool(line)} for line in lines if line.runtime]),
    ):
        flat = [dict(flatten(_lasting(value))) for value in values]
        distinct = [one for place, one in enumerate(flat) if one and one not in flat[:place]]
        fullest = [one for one in distinct if not any(one.items() < other.items() for other in distinct)]
        for number, facts in enumerate(fullest, 1):
            name = title if len(fullest) == 1 else f"{title} {number}"
            found.append(Facts(name, tuple(facts.items())))
    return found


def _lasting(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: inner for key, inner in value.items() if key not in PASSING}
    return {key: _lasting(inner) if isinstance(inner, Mapping) else inner for key, inner in kept.items()}


def _tool(line: Measurement) -> str:
    return f"{line.tool.get('name', '')} {line.tool.get('version', '')}".strip()


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as ``outer inner`` names; what is empty is left out."""
    items: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(inner, Mapping):
            items += flatten(inner, name)
        elif isinstance(inner, list | tuple):
            texts = [_scalar(name, x) if not isinstance(x, Mapping) else _pairs(x) for x in inner]
            items += [(name, clip(", ".join(texts)))] if texts else []
        elif inner is not None and inner != "":
            items.append((name, clip(_scalar(name, inner))))
    return items


def _pairs(value: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {text}" for name, text in flatten(value))


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000_000 and ("memory" in name or "bytes" in name):
        return f"{significant(value / 1e9)} GB" if value >= 10**9 else f"{megabytes(value)} MB"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clip(text: str, length: int = LONGEST) -> str:
    """Text that cannot flood the page."""
    return text if len(text) <= length else text[: length - 1] + "…"


LONGEST_WORD = 80
TITLES = {"quality": "Quality", "generate": "Latency", "embed": "Latency"}


def describe(line: Measurement) -> str:
    """One line of text for the workload and, for latency, the threads and the processor."""
    kind = str(line.workload.get("kind"))
    if kind == "quality":
        parts = _quality(line.workload)
    else:
        parts = _generation(line.workload) if kind == "generate" else _embedding(line.workload)
        parts += [threads(line)] if threads(line) else []
        parts += [machine(line)] if line.device else []
    return f"{TITLES.get(kind, kind)}: {', '.join(parts)}"


def _quality(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"text {workload['text']}"] if workload.get("text") else []
    if workload.get("windows"):
        parts.append(f"{workload['windows']} windows of {workload.get('length', '?')} tokens")
    if workload.get("sentences"):
        parts.append(f"{workload['sentences']} sentences")
    if workload.get("images"):
        parts = [f"{workload['images']} images of {workload['text']}"]
    if workload.get("sounds"):
        parts = [f"{workload['sounds']} sounds of {workload['text']}"]
    if workload.get("pairs"):
        parts = _pairs_of(workload)
    pairs = workload.get("word_pairs")
    if isinstance(pairs, Mapping):
        parts += [f"{count} word pairs of {name}" for name, count in pairs.items()]
    return parts


def _pairs_of(workload: Mapping[str, Any]) -> list[str]:
    count, text = workload["pairs"], workload.get("text", "?")
    given = workload.get("outputs") == "given"
    parts = [f"{count} pairs of {text}" if given else f"{count} inputs of {text}"]
    parts += [] if given else [f"outputs are {workload.get('outputs')}"]
    cut = {name: workload.get(f"cut_{name}") for name in ("inputs", "outputs")}
    return parts + [f"{number} {name} cut" for name, number in cut.items() if number]


def _generation(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"prompt of {workload['prompt_tokens']} tokens"] if workload.get("prompt_tokens") else []
    parts += [f"{workload['new_tokens']} new tokens"] if workload.get("new_tokens") else []
    if workload.get("concurrency"):
        return [*parts, f"{workload['concurrency']} at once, through a server"]
    return [*parts, f"batch {workload.get('batch', '?')}"]


def _embedding(workload: Mapping[str, Any]) -> list[str]:
    parts = [f"sentences of {workload['length']} tokens"] if workload.get("length") else []
    return [*parts, f"batches of {workload.get('batch', '?')}"]


def measured_with(line: Measurement) -> str:
    """What ran the work: ``onnxruntime 1.32.0, edgepress operators (avx512_vnni)``."""
    runtime = line.runtime
    parts = [f"{runtime.get('name', '')} {runtime.get('version', '')}".strip()]
    if runtime.get("operators"):
        kind = f" ({runtime['instructions']})" if runtime.get("instructions") else ""
        parts.append(f"{runtime['operators']} operators{kind}")
    providers = [str(one) for one in runtime.get("providers") or [] if one != "CPUExecutionProvider"]
    return ", ".join(filter(None, [*parts, *providers]))


def threads(line: Measurement) -> str:
    """``2 threads``, or nothing where it is not recorded."""
    count = line.runtime.get("threads")
    return threads_in_words(count) if isinstance(count, int) else ""


def machine(line: Measurement) -> str:
    """The processor, or the operating system where it is unknown, after the name that its owner gave the
    machine.
    """
    cpu = line.device.get("cpu")
    name = cpu.get("model") if isinstance(cpu, Mapping) else cpu
    known, own = str(name or line.device.get("os") or "an unnamed machine"), line.device.get("name")
    return f"{own}: {known}" if own else known


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
    "original_from_cache": "of the original from the cache: {}",
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


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits without an exponent: ``170``, ``43.1``, ``0.142``, ``12
    400``.
    """
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if rounded != 0:  # 9.996 rounds to 10.0, which has a digit more before the point
        decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}".replace(",", THIN)


def tick(value: float) -> str:
    """A number on an axis: ``0.1``, ``50``, ``2 000``, with no more digits than it has."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"
    return text.replace(",", THIN)


def fixed(value: float, decimals: int) -> str:
    """``value`` with ``decimals`` places; a positive value too small for them is given as ``<0.001``."""
    smallest = 10.0**-decimals
    if 0 < abs(value) < smallest / 2:
        return f"<{smallest:.{decimals}f}" if value > 0 else f">-{smallest:.{decimals}f}"
    return f"{value:,.{decimals}f}".replace(",", THIN)


def scientific(value: float) -> str:
    """Two digits at any magnitude: ``0.0064``, ``5.9e-05``."""
    return f"{value:.2g}"


def perplexity(value: float) -> str:
    """Two decimals below 100, fewer above: ``26.90``, ``132.3``, ``71 200``."""
    return fixed(value, 2) if value < 100 else fixed(value, 1) if value < 1000 else significant(value)


def megabytes(value: float) -> str:
    """Bytes as megabytes (10⁶) without the unit."""
    return significant(value / 1e6)


def percent(value: float) -> str:
    """A share as per cent with one decimal, without the sign: 0.797 → ``79.7``."""
    return fixed(100 * value, 1)


def times(value: float) -> str:
    """A ratio with its sign: ``6.5×``, ``12×``."""
    return f"{significant(value, 2 if value >= 1 else 3)}×"
