"""Synthetic measurements with the magnitudes of real ones: a decoder and an encoder, some lines doubtful."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records.record import Measurement, Metric, SampleAnswer, Subject, Validity
from edgepress.devices.meters import rapl

DECODER = "SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid"
ENCODER = "all-MiniLM-L6-v2"
DEVICE = {
    "fingerprint": "f" * 64,
    "os": "Linux",
    "kernel": "6.12.48",
    "libc": "glibc 2.41",
    "python": "3.11.2",
    "cpu": {"model": "AMD EPYC 9R14", "physical": 2, "logical": 2, "isa": ["avx2", "avx512_vnni", "bf16"]},
    "memory": {"total": 25276510208, "limit": None},
    "limits": {"affinity": 2, "cpu_quota": 2.0, "threads": 2, "container": True},
}
RUNTIME = {
    "name": "onnxruntime",
    "version": "1.32.0",
    "operators": "edgepress",
    "instructions": "avx2",
    "providers": ["CPUExecutionProvider"],
    "threads": 2,
}
KINDS = {
    "decoder": [
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    ],
    "encoder": [
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
}
TIME = {
    "decoder": {"MatMulNBits": 4.11, "GroupQueryAttention": 0.98, "SkipSimplifiedLayerNormalization": 0.44}
    | {"Mul": 0.08, "QuickGelu": 0.06, "Split": 0.05, "GatherBlockQuantized": 0.01, "Gather": 0.004},
    "encoder": {
        "MatMulInteger": 41.0,
        "Softmax": 9.1,
        "MatMul": 8.0,
        "DynamicQuantizeLinear": 4.2,
        "Erf": 3.7,
    },
}


def metric(value: float | None, spread: float, unit: str = "", better: str = "lower", **more: Any) -> Metric:
    """A metric with a symmetric interval of ``value`` ± ``spread``."""
    interval = None if value is None or not spread else (value - spread, value + spread)
    return Metric(value=value, unit=unit, n=16, better=better, ci95=interval, **more)  # type: ignore[arg-type]


def layers(kind: str, blocks: int, error: float, seed: int) -> list[dict[str, Any]]:
    """Per-layer errors around ``error``; one layer fell back."""
    generator = random.Random(seed)
    prefix = "model.layers" if kind == "decoder" else "encoder.layer"
    found: list[dict[str, Any]] = []
    for block in range(blocks):
        for name in KINDS[kind]:
            own = error * generator.lognormvariate(0, 0.5) * (2.5 if "down" in name and block > 25 else 1)
            entry = {
                "name": f"{prefix}.{block}.{name}",
                "scheme": "W4A16-g64",
                "status": "ok",
                "error": own**2,
            }
            found.append(entry)
    if kind == "decoder":
        found[-1]["status"] = "damped"
    return found


def subject(
    scheme: str, megabytes: float, *, kind: str = "decoder", form: str = "onnx", error: float = 0
) -> Subject:
    """An artifact whose identity is a hash of its scheme and format."""
    identity = hashlib.sha256(f"{kind} {scheme} {form}".encode()).hexdigest()
    stem = "smollm2" if kind == "decoder" else "minilm"
    return Subject(
        name=f"{stem}-{scheme.replace(' ', '-').lower()}",
        manifest_sha256=identity,
        kind=kind,  # type: ignore[arg-type]
        format=form,  # type: ignore[arg-type]
        scheme=scheme,
        source=DECODER if kind == "decoder" else ENCODER,
        params=134_515_008 if kind == "decoder" else 22_713_216,
        disk_bytes=int(megabytes * 1e6),
        layers=layers(kind, 30 if kind == "decoder" else 6, error, len(scheme)) if error else [],
        recipe={"passes": [{"pass": "gptq", "scheme": scheme}]} if error else None,
    )


def quality(of: Subject, against: Subject | None, metrics: dict[str, Metric], **changes: Any) -> Measurement:
    """A line as ``validate`` writes it."""
    workload = {
        "kind": "quality",
        "text": "wikipedia held-out",
        "placement": "spread",
        "text_sha256": "a" * 64,
    }
    workload |= {"windows": 16, "length": 512} if of.kind == "decoder" else {"sentences": 256}
    fields: dict[str, Any] = {
        "created_utc": "2026-11-25T02:10:00+00:00",
        "command": f"edgepress validate runs/{of.name} --against runs/original --record runs/all.jsonl",
        "workload": workload,
        "runtime": RUNTIME,
        "protocol": {"interval": "percentile bootstrap over windows, differences paired", "resamples": 2000},
    }
    return Measurement(subject=of, baseline=against, metrics=metrics, **(fields | changes))


def latency(of: Subject, against: Subject | None, metrics: dict[str, Metric], **changes: Any) -> Measurement:
    """A line as ``profile`` writes it."""
    workload: dict[str, Any] = {"kind": "generate", "batch": 1, "prompt_tokens": 128, "new_tokens": 128}
    if of.kind != "decoder":
        workload = {"kind": "embed", "batch": 32, "length": 128}
    fields: dict[str, Any] = {
        "created_utc": "2026-11-25T02:20:00+00:00",
        "command": f"edgepress profile runs/{of.name} --baseline runs/fp32 --record runs/all.jsonl",
        "workload": workload,
        "runtime": RUNTIME,
        "device": DEVICE,
        "state": {
            "before": {"load": 0.21, "governor": "performance"},
            "after": {"load": 1.4, "governor": "performance"},
            "between": {"other_cpu_pct": 0.6, "steal_pct": 0.0},
        },
        "protocol": {"blocks": 10, "processes": 5, "order": "ABBA", "warmup_seconds": 2.0},
        "time_by_op": time_by_op("decoder" if of.kind == "decoder" else "encoder"),
    }
    return Measurement(subject=of, baseline=against, metrics=metrics, **(fields | changes))


def time_by_op(kind: str) -> list[dict[str, Any]]:
    """Operators by falling share."""
    total = sum(TIME[kind].values())
    return [{"op": op, "ms": ms, "share": ms / total, "nodes": 30} for op, ms in TIME[kind].items()]


DECODERS: list[tuple[str, float, float, float, float, float, float, float, float]] = [
    # scheme, MB, layer error, perplexity, KL, top-1, decode, prefill, RSS in MB
    ("W8A8 gptq", 221, 0.012, 27.22, 0.0131, 0.934, 96, 951, 402),
    ("W4A16-g32 gptq", 92.3, 0.066, 29.88, 0.139, 0.797, 141, 760, 221),
    ("W4A16-g64 gptq", 83.1, 0.074, 30.74, 0.148, 0.789, 156, 822, 197),
    ("W4A16-g64 rtn", 83.1, 0.121, 35.31, 0.297, 0.706, 155, 820, 198),
    ("W3A16-g64 gptq", 83.1, 0.16, 66.6, 0.924, 0.545, 154, 815, 199),
    ("W2A16-g64 gptq", 66.0, 0.47, 7120.0, 6.61, 0.081, 412, 801, 175),
]


ANSWERS = [
    SampleAnswer(prompt="Why is the sky blue?", original="Light scatters.", compressed="Light is scattered."),
    SampleAnswer(
        prompt="How do I boil an egg?", original="Six minutes.\nThen cool it.", compressed="Boil it."
    ),
]


NEIGHBOURS = [
    SampleAnswer(
        prompt=f"Where is harbour {number}?",
        original=f"0.71 By the sea, at pier {number}.\n0.40 A boat came in late.\n0.31 Ships are large.",
        compressed=f"0.69 A boat, {number}.\n0.42 By the sea.\n0.30 Ships are large.",
    )
    for number in range(3)
]


def _decoders() -> list[Measurement]:
    original, graph = subject("fp32", 541, form="hf"), subject("fp32", 543)
    zero = metric(0.0, 0, "nats")
    lines = [
        quality(
            original, None, {"perplexity": metric(26.9, 2.1), "kl": zero, "top1_agreement": metric(1.0, 0)}
        ),
        quality(
            graph, original, {"perplexity": metric(26.9, 2.1), "kl": zero, "top1_agreement": metric(1.0, 0)}
        ),
        latency(
            graph,
            None,
            {
                "decode_tps": metric(43.4, 0.8),
                "prefill_tps": metric(410, 6),
                "rss_peak_bytes": metric(814e6, 0),
                "device_bytes": metric(543e6, 0, "bytes"),
            },
        ),
    ]
    for scheme, size, error, perplexity, kl, top1, decode, prefill, rss in DECODERS:
        made = subject(scheme, size, error=error)
        measured = {
            "perplexity": metric(perplexity, perplexity * 0.08),
            "kl": metric(kl, kl * 0.07, "nats"),
            "top1_agreement": metric(top1, 0.012, better="higher"),
        }
        lines.append(quality(made, original, measured, answers=ANSWERS))
        timed = {
            "decode_tps": metric(decode, decode * 0.02, "tok/s", "higher"),
            "prefill_tps": metric(prefill, prefill * 0.015, "tok/s", "higher"),
            "rss_peak_bytes": metric(rss * 1e6, 0, "bytes"),
            "device_bytes": metric(made.disk_bytes, 0, "bytes"),
        }
        changes: dict[str, Any] = {}
        if scheme.startswith("W2"):
            reason = "impossible: 412 tok/s is above 1.05 × the ceiling of 377 tok/s"
            changes["validity"] = Validity(status="invalid", reasons=[reason])
        elif scheme.startswith("W3"):
            changes["validity"] = Validity(status="suspect", reasons=["another process used 31 % of the CPU"])
        ratio = decode / 43.4
        changes["compare"] = {
            "ratio_median": ratio,
            "ci95": (ratio * 0.98, ratio * 1.02),
            "n_pairs": 10,
            "verdict": "faster",
            "reason": "",
        }
        lines.append(latency(made, graph, timed, **changes))
    return lines


def _encoders() -> list[Measurement]:
    original, graph = subject("fp32", 91.6, kind="encoder", form="hf"), subject("fp32", 91.3, kind="encoder")
    made = subject("W8A8 rtn", 24.6, kind="encoder", error=0.011)

    def scores(cosine: float, found: float, same: float) -> dict[str, Metric]:
        return {
            "cosine": metric(cosine, 0.0003 if cosine < 1 else 0, better="higher"),
            "retrieval_at_1": metric(found, 0.05, better="higher"),
            "neighbour_overlap": metric(same, 0.01 if same < 1 else 0, better="higher"),
        }

    def timed(rate: float, alone: float, rss: float) -> dict[str, Metric]:
        return {
            "sentences_per_second": metric(rate, rate * 0.02, "1/s", "higher"),
            "latency_ms": metric(alone, alone * 0.03, "ms"),
            "rss_peak_bytes": metric(rss * 1e6, 0, "bytes"),
        }

    compare = {"ratio_median": 1.72, "ci95": (1.69, 1.76), "n_pairs": 10, "verdict": "faster", "reason": ""}
    return [
        quality(original, None, scores(1.0, 0.729, 1.0)),
        quality(graph, original, scores(1.0, 0.729, 1.0)),
        quality(made, original, scores(0.9981, 0.727, 0.951), answers=NEIGHBOURS),
        latency(graph, None, timed(96.2, 20.7, 268)),
        latency(made, graph, timed(165.5, 11.9, 171), compare=compare),
    ]


@pytest.fixture(autouse=True)
def no_energy_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes no longer on a machine whose counter can be read."""
    monkeypatch.setattr(rapl, "POWERCAP", Path("no-such-folder"))


@pytest.fixture(scope="session", autouse=True)
def roofs(small_roofs: None) -> None:
    """What these tests profile is small."""


@pytest.fixture(scope="session")
def measured() -> list[Measurement]:
    """A decoder in eight rows, one of them invalid and one suspect, and an encoder in three."""
    return [*_decoders(), *_encoders()]


@pytest.fixture(scope="session")
def make_subject() -> Callable[..., Subject]:
    """The factory :func:`subject`."""
    return subject


@pytest.fixture(scope="session")
def make_quality() -> Callable[..., Measurement]:
    """The factory :func:`quality`."""
    return quality


@pytest.fixture(scope="session")
def make_latency() -> Callable[..., Measurement]:
    """The factory :func:`latency`."""
    return latency


@pytest.fixture(scope="session")
def make_metric() -> Callable[..., Metric]:
    """The factory :func:`metric`."""
    return metric
