"""The gate of ``export --require-faster``: a bundle must beat the same model in float32 on this machine.

The two are measured in turns as ``profile`` does; a decoder is judged by its decoding, an encoder by its
throughput. Who fails is told what the graph, the CPU and the trace say about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...devices.probe import probe
from ...errors import GateFailed
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile
from ...terminal import Progress
from ..records.record import Measurement
from .profile import profile_bundle
from .protocol import Protocol
from .slow_reasons import slow_reasons

PROMPT_TOKENS = 64
NEW_TOKENS = 64
BATCH = 8


def require_faster(
    bundle: Path,
    baseline: Path,
    *,
    protocol: Protocol | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Measurement:
    """Measure ``bundle`` against ``baseline``, the same model in float32.

    Returns:
        The bundle's line, which says how much faster it is.

    Raises:
        GateFailed: it is not, or the machine was too noisy to tell; says why.
        EdgepressError: what :func:`.profile.profile_bundle` raises.
    """
    opened = Bundle.open(bundle)
    line = profile_bundle(
        bundle,
        baseline=baseline,
        protocol=protocol or Protocol.quick(),
        command=command,
        progress=progress,
        cache=False,  # what has not been published leaves nothing behind
        energy=False,
        **_work(opened),
    )
    assert line.compare is not None, "a baseline was given"
    if line.compare["verdict"] != "faster" or line.validity.status == "invalid":
        raise _failure(line, _reasons(opened, line))
    return line


def _work(bundle: Bundle) -> dict[str, Any]:
    """A short piece of the kind's work that fits the model."""
    if bundle.kind == "encoder":
        return {"prompt_tokens": min(PROMPT_TOKENS, bundle.encoder.max_length), "batch": BATCH}
    half = bundle.decoder.context_length // 2
    return {"prompt_tokens": min(PROMPT_TOKENS, half), "new_tokens": min(NEW_TOKENS, half)}


def _reasons(bundle: Bundle, line: Measurement) -> list[str]:
    cpu = probe().cpu
    return slow_reasons(
        GraphFile.read(bundle.graph),
        isa=cpu.isa,
        machine=cpu.machine,
        cache_bytes=cpu.last_level_cache_bytes,
        float_bytes=4 * (line.subject.params or 0),
        time_by_op=line.time_by_op,
    )


def _failure(line: Measurement, reasons: Sequence[str]) -> GateFailed:
    compare: dict[str, Any] = line.compare or {}
    ratio = compare["ratio_median"]
    if line.validity.status == "invalid" or compare["verdict"] == "invalid":
        doubts = [compare["reason"] or "; ".join(line.validity.reasons)]
        told = "" if ratio is None else f" ({ratio:.2f} × in the median)"
        what = f"{line.subject.scheme} could not be shown to be faster than float32 here{told}"
        return GateFailed(
            what,
            why="; ".join([*doubts, *reasons]),
            fix="run it again on a quiet machine, or leave out --require-faster",
        )
    what = f"{line.subject.scheme} is not faster than float32 here: {ratio:.2f} × its {compare['metric']}"
    return GateFailed(
        what,
        why="; ".join(reasons) or "nothing in the graph or the CPU explains it",
        fix="choose another scheme, see where the time goes with edgepress profile --per-op, "
        "or leave out --require-faster",
    )
