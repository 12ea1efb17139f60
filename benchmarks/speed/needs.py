"""What a profile needs of this machine: nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.bundle.bundle import Bundle
from ...runtime.session.needs import Needs
from .protocol import Protocol
from .timed_work import TimedGeneration, Workload

# Resident bytes of a worker with ONNX Runtime, and of the process that starts it.
_WORKER, _SELF = 150 << 20, 120 << 20
_LOADED = 1.25  # of the files: they are mapped, and some weights are kept in another order
# What a slow machine does in a second: bytes of weights for a token, multiply-adds of a prompt.
_BYTES, _MULTIPLICATIONS = 8e9, 5e10
_START, _INSTRUMENTED = 1.5, 10.0  # seconds of a worker, and of the run that accounts for operators


def profile_needs(
    bundles: Sequence[Bundle], workload: Workload, protocol: Protocol, *, energy: bool
) -> Needs:
    """What :func:`~edgepress.benchmarks.speed.profile.profile_bundle` needs for ``bundles``, which run one
    after another.
    """
    sizes = {str(bundle.path): _files(bundle) for bundle in bundles}
    seconds = sum(_seconds(bundle, workload, protocol, energy=energy) for bundle in bundles)
    return Needs(
        "profile",
        sizes,
        _SELF + max(_memory(bundle, workload) for bundle in bundles),
        1 << 20,
        seconds,
        _shorter(bundles, workload),
    )


def _files(bundle: Bundle) -> int:
    return sum(int(entry["bytes"]) for entry in bundle.manifest["files"].values())


def _memory(bundle: Bundle, workload: Workload) -> int:
    """Resident bytes of a worker."""
    size = _WORKER + int(_LOADED * _files(bundle))
    if not isinstance(workload, TimedGeneration):
        return size + 4 * workload.batch * workload.length * 16 * bundle.encoder.hidden_size
    decoder = bundle.decoder
    tokens = workload.prompt_tokens + workload.new_tokens
    return size + decoder.kv_bytes_per_token * tokens + 4 * decoder.vocab_size


def _seconds(bundle: Bundle, workload: Workload, protocol: Protocol, *, energy: bool) -> float:
    once, size, weights = 0.01, _files(bundle), _weights(bundle)
    if isinstance(workload, TimedGeneration):
        once += workload.new_tokens * size / _BYTES + workload.prompt_tokens * weights / _MULTIPLICATIONS
    else:
        once += workload.batch * workload.length * weights / _MULTIPLICATIONS
    block = _START + max(protocol.warmup_seconds, protocol.warmup_iterations * once) + once
    windows = 2 * protocol.energy_windows * (_START + protocol.energy_seconds) if energy else 0.0
    return protocol.blocks * (block + protocol.block_ms / 1e3) + windows + _INSTRUMENTED + size / 1e9


def _weights(bundle: Bundle) -> int:
    """How many there are, as its manifest says, or as many as four bits each make of its files."""
    counted = bundle.manifest.get("weights")
    params = counted.get("params") if isinstance(counted, dict) else None
    return params if isinstance(params, int) else 2 * _files(bundle)


def _shorter(bundles: Sequence[Bundle], workload: Workload) -> tuple[tuple[str, int], ...]:
    """Half the prompt and half the new tokens, for as long as that helps."""
    if not isinstance(workload, TimedGeneration):
        return ()
    half = TimedGeneration(workload.prompt_tokens // 2, workload.new_tokens // 2)
    needed = _SELF + max(_memory(bundle, half) for bundle in bundles)
    return ((f"--prompt-tokens {half.prompt_tokens} --max-new-tokens {half.new_tokens}", needed),)
