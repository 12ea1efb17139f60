"""The roofs over one bundle on this machine: bandwidth before and after the timed blocks, the roofline that
follows, and the account of every node against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...devices.bandwidth import SMALLEST, Bandwidth, measure_bandwidth
from ...devices.probe import Machine
from ...runtime.bundle.bundle import Bundle
from ..records.bundle_subject import describe_bundle
from .per_op import with_bandwidth
from .profile_task import ProfileTask
from .roofline import Roofline, best, measure_both

# Over a working set of the weights' size, and over one that only main memory can hold; None of a bundle that
# has no roofline: an encoder, a manifest without sizes, and where memory is not the CPU's.
Bandwidths = tuple[Bandwidth, Bandwidth] | None


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
