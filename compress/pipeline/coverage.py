"""How many calibration tokens came to each expert of a block: in the statuses of its layers, and in words
where they were few.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.block_anatomy import BlockAnatomy
from .block import LayerStatus, Statistics

FEW = 256


def coverage(block: BlockAnatomy, statistics: Statistics, statuses: Sequence[LayerStatus]) -> str | None:
    """Add to the ``statuses`` of experts how many tokens their layers were calibrated with.

    Returns what to say of the experts that fewer than :data:`FEW` came to; None where all saw as many, or
    nothing was calibrated.
    """
    experts = block.experts
    seen = {name: int(found["tokens"]) for name, found in statistics.items() if "tokens" in found}
    if experts is None or not seen:
        return None
    for status in statuses:
        if status.name in seen:
            count = seen[status.name]
            text = f"{count} tokens" if count else "no calibration token came to this expert"
            status.detail = f"{status.detail}; {text}" if status.detail else text
    counts = {name.removeprefix(f"{experts.prefix}.").split(".")[0]: count for name, count in seen.items()}
    few = sorted((count, int(expert)) for expert, count in counts.items() if count < FEW)
    if not few:
        return None
    listed = ", ".join(f"{expert} ({count})" for count, expert in few)
    return (
        f"{experts.prefix}: fewer than {FEW} calibration tokens came to {len(few)} of {experts.count} "
        f"experts: {listed}; more text reaches more of them"
    )
