"""``ProfileTask``: what a profile is asked: bundles that have been checked, the work that they all do, and
how they run. The plan and the measurement begin with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...devices.bandwidth import beyond_cache
from ...devices.energy import Meter, NoMeter, find_meter
from ...devices.processor import read_processor
from ...devices.quick_rates import QuickRates, quick_rates
from ...errors import InputError
from ...runtime.bundle.bundle import Bundle
from ...runtime.session.needs import Needs
from ...runtime.session.session import device_of
from ...runtime.session.threads import thread_budget
from ..records.bundle_subject import bytes_of_a_token, multiplications
from ..records.energy_metrics import STEPS
from .protocol import Protocol
from .work.timed_answer import TimedAnswer
from .work.timed_work import Embedding, TimedGeneration, TimedImages, Workload

# Resident bytes of a worker with ONNX Runtime, and of the process that starts it.
_WORKER, _SELF = 150 << 20, 120 << 20
_LOADED = 1.25  # of the files: they are mapped, and some weights are kept in another order
# Of the rates of this machine's memory and products, what a graph reaches.
_OF_MEMORY, _OF_PRODUCTS = 0.5, 0.8
# Where another device computes, of which nothing is known.
_ELSEWHERE = QuickRates(8e9, 5e10)
# Seconds of a worker's start, and of the runs around the blocks: bandwidth, and the account of the operators.
_START, _AROUND = 1.0, 6.0
# About what an image or a sound of half a minute becomes.
_IMAGE_TOKENS, _SOUND_STATES = 256, 1500


@dataclass(frozen=True)
class ProfileTask:
    """The bundles take turns, in this order; ``per_op`` accounts for every node, ``meter`` counts energy."""

    bundles: list[Bundle]
    workload: Workload
    protocol: Protocol
    threads: int
    provider: str
    meter: Meter | NoMeter
    per_op: bool

    @classmethod
    def opened(
        cls,
        paths: Sequence[str | Path],
        *,
        prompt_tokens: int,
        new_tokens: int,
        batch: int,
        threads: int | None,
        protocol: Protocol | None,
        provider: str,
        energy: bool,
        per_op: bool = False,
    ) -> ProfileTask:
        """Open the bundles at ``paths``."""
        protocol, bundles = protocol or Protocol(), [Bundle.open(Path(path)) for path in paths]
        two = next((one for one in bundles if one.kind == "encoder_decoder"), None)
        if per_op and two is not None:
            raise InputError(
                f"{two.path} has two graphs, and --per-op accounts for one",
                fix="leave --per-op out: the time by operator is measured without it",
            )
        return cls(
            bundles,
            workload_of(bundles, prompt_tokens, new_tokens, batch, protocol.seed),
            protocol,
            thread_budget() if threads is None else threads,
            provider,
            find_meter(device_of(provider)) if energy else NoMeter("it was not requested"),
            per_op,
        )

    @property
    def session(self) -> dict[str, Any]:
        """With what a worker opens a bundle."""
        return {"threads": self.threads, "provider": self.provider}


def workload_of(
    bundles: Sequence[Bundle], prompt_tokens: int, new_tokens: int, batch: int, seed: int
) -> Workload:
    """What is timed of these bundles; raises InputError where they cannot do the same work."""
    kinds = {opened.kind for opened in bundles}
    if len(kinds) > 1:
        named = " and ".join(sorted(kind.replace("_", "–") for kind in kinds))
        raise InputError(f"models of the kinds {named} do not do the same work and cannot be compared")
    workload: Workload
    if kinds == {"decoder"}:
        workload = TimedGeneration(prompt_tokens, new_tokens, seed=seed)
    elif kinds == {"encoder_decoder"}:
        sound = bundles[0].encoder_decoder.sound
        seconds = 0.0 if sound is None else sound.samples / sound.rate
        workload = TimedAnswer(prompt_tokens, new_tokens, seconds, seed)
    elif bundles[0].encoder.image is not None:
        workload = TimedImages(batch, seed=seed)
    else:
        workload = Embedding(prompt_tokens, batch, seed=seed)
    for opened in bundles:
        workload.check(opened)
    if kinds != {"encoder"} and len(set(map(_vocabulary, bundles))) > 1:
        raise InputError(
            "the two bundles have vocabularies of different sizes",
            why="a token of one is not a token of the other, so tokens per second do not compare",
        )
    return workload


def _vocabulary(bundle: Bundle) -> int:
    return (bundle.decoder if bundle.kind == "decoder" else bundle.encoder_decoder).vocab_size


def profile_needs(task: ProfileTask) -> Needs:
    """What :func:`~edgepress.benchmarks.speed.profile.profile_bundle` needs for the bundles of ``task``,
    which run one after another.
    """
    sizes = {str(bundle.path): _files(bundle) for bundle in task.bundles}
    rates = quick_rates(task.threads) if device_of(task.provider) == "cpu" else _ELSEWHERE
    windows = _windows(task)
    seconds = sum(_seconds(bundle, task, rates) + windows for bundle in task.bundles)
    return Needs(
        "profile",
        sizes,
        _together(task.bundles, task.workload, task.provider),
        1 << 20,
        seconds,
        _shorter(task),
    )


def _files(bundle: Bundle) -> int:
    return sum(int(entry["bytes"]) for entry in bundle.manifest["files"].values())


def _together(bundles: Sequence[Bundle], workload: Workload, provider: str) -> int:
    """Resident bytes of this process, and of a worker or what measures the bandwidth under a decoder."""
    largest = max(_memory(bundle, workload) for bundle in bundles)
    if provider == "cpu" and any(bundle.kind == "decoder" for bundle in bundles):
        largest = max(largest, beyond_cache(read_processor().last_level_cache_bytes))
    return _SELF + largest


def _memory(bundle: Bundle, workload: Workload) -> int:
    """Resident bytes of a worker."""
    size = _WORKER + int(_LOADED * _files(bundle))
    if isinstance(workload, Embedding | TimedImages):
        return size + 4 * workload.batch * _tokens(workload) * 16 * bundle.encoder.hidden_size
    if isinstance(workload, TimedAnswer):
        both = bundle.encoder_decoder
        read = _SOUND_STATES if workload.seconds else workload.prompt_tokens
        return size + both.kv_bytes_per_token * (read + workload.new_tokens) + 4 * both.vocab_size
    decoder = bundle.decoder
    tokens = workload.prompt_tokens + workload.new_tokens
    return size + decoder.kv_bytes_per_token * tokens + 4 * decoder.vocab_size


def _tokens(workload: Embedding | TimedImages) -> int:
    return workload.length if isinstance(workload, Embedding) else _IMAGE_TOKENS


def _windows(task: ProfileTask) -> float:
    """Seconds of one bundle's windows of energy: idle and each phase, in each turn."""
    if isinstance(task.meter, NoMeter):
        return 0.0
    window = max(task.protocol.energy_seconds, STEPS * task.meter.update_s)
    return task.protocol.energy_windows * (_START + (1 + len(task.workload.units)) * window)


def _seconds(bundle: Bundle, task: ProfileTask, rates: QuickRates) -> float:
    """Of one bundle, without its windows of energy."""
    once, size, workload, protocol = 0.01, _files(bundle), task.workload, task.protocol
    reading = _OF_MEMORY * rates.bytes
    multiplying = multiplications(bundle) / (_OF_PRODUCTS * rates.multiply_adds)
    if isinstance(workload, Embedding | TimedImages):
        once += (workload.batch + workload.singles) * _tokens(workload) * multiplying
    else:
        speech = isinstance(workload, TimedAnswer) and workload.seconds
        once += workload.new_tokens * bytes_of_a_token(bundle) / reading
        once += (_SOUND_STATES if speech else workload.prompt_tokens) * multiplying
    block = _START + max(protocol.warmup_seconds, protocol.warmup_iterations * once) + once
    loads = 2 * size / reading
    return protocol.blocks * (block + loads + protocol.block_ms / 1e3) + _AROUND + size / 1e9


def _shorter(task: ProfileTask) -> tuple[tuple[str, int], ...]:
    """Half the prompt and half the new tokens, for as long as that helps."""
    if not isinstance(task.workload, TimedGeneration):
        return ()
    half = TimedGeneration(task.workload.prompt_tokens // 2, task.workload.new_tokens // 2)
    needed = _together(task.bundles, half, task.provider)
    return ((f"--prompt-tokens {half.prompt_tokens} --max-new-tokens {half.new_tokens}", needed),)
