"""Collecting what passes ask for: taps on the inputs of a block's linears while the batches run through it.

A statistic that compares with the original model sees both at once: each batch runs first through the block
as it is, then through the block as it was, on the original's inputs. There each expert is shown the tokens
that came to it in the block as it is, wherever they went in the original: what it would have made of them is
what it is compared with. Rows that are not finite are left out. Of experts, each of which sees some of the
tokens, statuses say how many.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import BlockAnatomy, Linear
from ..model.separate_experts import routed_alike, rows_of
from .advance import forwards_tick
from .block import LayerStatus
from .forward import Batch, BatchSplitter, Watched, run_block, same_mask, watch_inputs
from .statistics import STATISTICS, Statistic

FEW = 256  # tokens that an expert is calibrated with, below which it is named
UNCALIBRATED = "fallback-uncalibrated"

Batches = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Side:
    """One model at this block: ``module`` with its ``linears`` by stored name, and its batches."""

    module: nn.Module
    linears: Mapping[str, nn.Module]
    batches: Batches


def collect(
    current: Side,
    original: Side | None,
    anatomy: BlockAnatomy,
    wanted: Mapping[str, tuple[str, ...]],
    smaller: BatchSplitter,
    tick: Tick = unseen,
) -> dict[str, dict[str, Tensor]]:
    """Statistics of the inputs of linears, by linear and statistic name; linears with shared inputs share
    tensors.

    ``wanted`` maps a linear to the statistics asked for; ``original`` is needed by paired ones. Starts over
    with smaller micro-batches when memory runs out, so that nothing is counted twice. ``tick`` receives the
    multiply-adds of each micro-batch.
    """
    while True:
        try:
            return _collect(current, original, anatomy, wanted, smaller.parts, tick)
        except torch.OutOfMemoryError as error:
            smaller.after(error, max(batch.hidden.shape[0] for batch in current.batches()))


def _collect(
    current: Side,
    original: Side | None,
    anatomy: BlockAnatomy,
    wanted: Mapping[str, tuple[str, ...]],
    parts: int,
    tick: Tick,
) -> dict[str, dict[str, Tensor]]:
    groups = [group for group in anatomy.inputs() if any(linear.name in wanted for linear in group)]
    device = next(current.module.parameters()).device
    statistics = [_statistics_of(group, wanted, device) for group in groups]
    paired = any(statistic.paired for tap in statistics for statistic in tap.values())
    # By group, of each time that the block is applied.
    waiting: list[deque[Tensor]] = [deque() for _ in groups]
    reads = () if anatomy.cross is None else (anatomy.cross.k, anatomy.cross.v)
    calls = anatomy.repeats

    def update(index: int, rows: Tensor, original_rows: Tensor | None = None) -> None:
        rows, original_rows = _finite(rows, original_rows)
        for statistic in statistics[index].values():
            statistic.update(rows, original_rows)
        tick(rows.numel() * rows.shape[1])

    references = original.batches if paired and original is not None else None
    for part, reference in _micro_batches(current.batches, references, parts):
        compared = reference is not None and original is not None
        see = (lambda i, rows: waiting[i].append(rows)) if compared else update
        with forwards_tick(current.linears.values(), tick):
            _tapped(current, groups, part, see, reads, calls)
        if reference is not None and original is not None:
            with routed_alike(current.module, original.module):
                take = lambda i, rows: update(i, waiting[i].popleft(), rows)  # noqa: E731
                _tapped(original, groups, reference, take, reads, calls)
    values = [{name: statistic.value() for name, statistic in tap.items()} for tap in statistics]
    return {linear.name: values[i] for i, group in enumerate(groups) for linear in group}


def _statistics_of(
    group: Sequence[Linear], wanted: Mapping[str, tuple[str, ...]], device: torch.device
) -> dict[str, Statistic]:
    needed = sorted({name for linear in group for name in wanted.get(linear.name, ())})
    return {name: STATISTICS[name](group[0].in_features, device) for name in needed}


def _micro_batches(
    batches: Batches, references: Batches | None, parts: int
) -> Iterator[tuple[Batch, Batch | None]]:
    """Each batch in ``parts`` micro-batches, beside the same one of the original's."""
    if references is None:
        for batch in batches():
            yield from ((part, None) for part in batch.split(parts))
        return
    for batch, reference in zip(batches(), references(), strict=True):
        yield from zip(*(side.split(parts) for side in same_mask(batch, reference)), strict=True)


def _finite(rows: Tensor, original: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Without the rows that hold NaN or infinity on either side: a sample may break inside the block."""
    sums = [float(side.sum()) for side in (rows, original) if side is not None]
    if all(map(math.isfinite, sums)):
        return rows, original
    keep = torch.isfinite(rows).all(1)
    if original is not None:
        keep &= torch.isfinite(original).all(1)
        original = original[keep]
    return rows[keep], original


def _tapped(
    side: Side,
    groups: Sequence[Sequence[Linear]],
    batch: Batch,
    see: Callable[[int, Tensor], None],
    reads: Sequence[Linear],
    calls: int,
) -> None:
    """Run ``batch`` through the block and show ``see`` the input rows ``[tokens, in]`` of each group, each
    time of the ``calls`` that it is applied; those in ``reads`` read an encoder's states.
    """

    def tap(index: int, module: nn.Module, mask: Tensor | None) -> Callable[[Tensor], None]:
        def show(inputs: Tensor) -> None:
            rows = inputs.reshape(-1, inputs.shape[-1])
            see(index, rows if mask is None else rows[rows_of(module, mask)])

        return show

    watched: list[Watched] = []
    for index, group in enumerate(groups):
        module, mask = side.linears[group[0].name], batch.memory_mask if group[0] in reads else batch.mask
        watched.append((module, tap(index, module, mask)))
    watch_inputs(lambda: run_block(side.module, batch), watched, stop=True, calls=calls)


def coverage(block: BlockAnatomy, tokens: Mapping[str, int], statuses: Sequence[LayerStatus]) -> str | None:
    """Add to the ``statuses`` of experts how many ``tokens``, by linear, their layers were calibrated with;
    those of experts that no token came to are :data:`UNCALIBRATED`, where the pass does not say what it fell
    back on.

    Returns what to say of the experts that fewer than :data:`FEW` came to; None where all saw as many, or
    nothing was calibrated.
    """
    experts = block.experts
    routed = {linear.name for linear in block.expert_linears()}
    seen = {name: count for name, count in tokens.items() if name in routed}
    if experts is None or not seen:
        return None
    for status in statuses:
        if status.name in seen:
            count = seen[status.name]
            text = f"{count} tokens" if count else "no calibration token came to this expert"
            status.detail = f"{status.detail}; {text}" if status.detail else text
            if not count and not status.degraded:
                status.status = UNCALIBRATED
    counts = {name.removeprefix(f"{experts.prefix}.").split(".")[0]: count for name, count in seen.items()}
    few = sorted((count, int(expert)) for expert, count in counts.items() if count < FEW)
    if not few:
        return None
    listed = ", ".join(f"{expert} ({count})" for count, expert in few)
    return (
        f"{experts.prefix}: fewer than {FEW} calibration tokens came to {len(few)} of {experts.count} "
        f"experts: {listed}; more text reaches more of them"
    )
