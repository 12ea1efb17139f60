"""Collecting what passes ask for: taps on the inputs of a block's linears while the batches run through it.

A statistic that compares with the original model sees both at once: each batch runs first through the block
as it is, then through the block as it was, on the original's inputs. There each expert is shown the tokens
that came to it in the block as it is, wherever they went in the original: what it would have made of them is
what it is compared with. Where a linear adds to the residual stream, what that lacks before can be seen
beside its inputs. Rows that are not finite are left out. Of experts, each of which sees some of the
tokens, statuses say how many.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import BlockAnatomy, Linear
from ..model.separate_experts import routed_alike, rows_of
from .advance import forwards_tick
from .block import LayerStatus
from .forward import Batch, BatchSplitter, Watched, run_block, same_mask, watch_inputs
from .statistics import STATISTICS, ResidualCrossGramOfFirstHalf, Statistic

FEW = 256  # tokens that an expert is calibrated with, below which it is named
UNCALIBRATED = "fallback-uncalibrated"

Batches = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Side:
    """One model at this block: ``module`` with its batches, its ``linears`` by stored name, and its ``norms``
    where the residual stream is asked for.
    """

    module: nn.Module
    linears: Mapping[str, nn.Module]
    batches: Batches
    norms: Mapping[str, nn.Module] = field(default_factory=dict)

    def named(self, name: str) -> nn.Module:
        """A linear or a norm."""
        return self.norms[name] if name in self.norms else self.linears[name]


class Tap(NamedTuple):
    """A linear whose inputs are looked at, and what reads the residual stream that it adds to, where that is
    asked for.
    """

    linear: Linear
    stream: str | None


class Seen(NamedTuple):
    """The linear's inputs ``[tokens, in]``, and the residual stream ``[tokens, hidden]``."""

    rows: Tensor
    stream: Tensor | None


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
    both = zip(groups, statistics, strict=True)
    taps = [Tap(group[0], _stream(anatomy, group[0], asked)) for group, asked in both]
    # By group, of each time that the block is applied.
    waiting: list[deque[Seen]] = [deque() for _ in groups]
    reads = () if anatomy.cross is None else (anatomy.cross.k, anatomy.cross.v)
    calls = anatomy.repeats

    def update(index: int, now: Seen, before: Seen | None = None) -> None:
        original, missing = None if before is None else before.rows, None
        if before is not None and before.stream is not None and now.stream is not None:
            missing = before.stream.to(torch.float32) - now.stream
        rows, original, missing = _finite(now.rows, original, missing)
        for statistic in statistics[index].values():
            of_stream = isinstance(statistic, ResidualCrossGramOfFirstHalf)
            statistic.update(rows, missing if of_stream else original)
        tick(rows.numel() * (rows.shape[1] + (0 if missing is None else missing.shape[1])))

    references = original.batches if paired and original is not None else None
    for part, reference in _micro_batches(current.batches, references, parts):
        compared = reference is not None and original is not None
        see = (lambda i, seen: waiting[i].append(seen)) if compared else update
        with forwards_tick(current.linears.values(), tick):
            _tapped(current, taps, part, see, reads, calls)
        if reference is not None and original is not None:
            with routed_alike(current.module, original.module):
                take = lambda i, seen: update(i, waiting[i].popleft(), seen)  # noqa: E731
                _tapped(original, taps, reference, take, reads, calls)
    values = [{name: statistic.value() for name, statistic in found.items()} for found in statistics]
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


def _finite(
    rows: Tensor, original: Tensor | None, missing: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Without the rows that hold NaN or infinity in one of them: a sample may break inside the block."""
    sides = [side for side in (rows, original, missing) if side is not None]
    if all(math.isfinite(float(side.sum())) for side in sides):
        return rows, original, missing
    keep = torch.stack([torch.isfinite(side).all(1) for side in sides]).all(0)
    first, second = (None if side is None else side[keep] for side in (original, missing))
    return rows[keep], first, second


def _stream(anatomy: BlockAnatomy, linear: Linear, asked: Mapping[str, Statistic]) -> str | None:
    """The module that reads the residual stream which ``linear`` adds to, where one of its statistics is of
    that.
    """
    wanted = any(isinstance(statistic, ResidualCrossGramOfFirstHalf) for statistic in asked.values())
    return anatomy.stream_reader(linear) if wanted else None


def _tapped(
    side: Side,
    taps: Sequence[Tap],
    batch: Batch,
    see: Callable[[int, Seen], None],
    reads: Sequence[Linear],
    calls: int,
) -> None:
    """Run ``batch`` through the block and show ``see`` what each of the ``taps`` is for, each time of the
    ``calls`` that it is applied; those in ``reads`` read an encoder's states.
    """
    streams: dict[str, Tensor] = {}

    def rows_of_real(module: nn.Module, mask: Tensor | None, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        return rows if mask is None else rows[rows_of(module, mask)]

    def remember(reader: str, inputs: Tensor) -> None:
        streams[reader] = rows_of_real(side.module, batch.mask, inputs)

    def show(index: int, module: nn.Module, mask: Tensor | None, inputs: Tensor) -> None:
        see(index, Seen(rows_of_real(module, mask, inputs), streams.get(taps[index].stream or "")))

    watched: list[Watched] = []
    for index, tap in enumerate(taps):
        if tap.stream is not None:
            watched.append((side.named(tap.stream), partial(remember, tap.stream)))
        module, mask = side.named(tap.linear.name), batch.memory_mask if tap.linear in reads else batch.mask
        watched.append((module, partial(show, index, module, mask)))
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
