"""What a model loses without some of its heads, channels and blocks.

Heads and channels by the second order: the Fisher-weighted error that is left when those that stay compensate
(:mod:`edgepress.compress.prune.structured.widths`), from the backward sweep that measures the bits too.
Whole blocks, which second order does not reach, by running the model without each of them, nothing repaired.
"""

from collections.abc import Callable, Mapping
from math import isfinite

from torch import Tensor

from ...compress.measure.fisher import Measure, Observer
from ...compress.model.block_anatomy import BlockAnatomy
from ...compress.model.skeleton import Skeleton
from ...compress.passes.narrow import DAMPING
from ...compress.pipeline.block_inputs import BlockRunner, Stream
from ...compress.pipeline.forward import BatchSplitter
from ...compress.pipeline.stage import Stage
from ...compress.prune.structured.layer_removal import damages_without
from ...compress.prune.structured.widths import measure_of, refitted
from .possible import BLOCK, FRACTIONS, Cuts

_DROP_TOKENS = 512  # of text, for each block
CUT_SIZES = (_DROP_TOKENS, *FRACTIONS)

# By the name of a part and the count that it keeps.
CutLosses = dict[str, dict[str, float]]


def part_name(block: int, part: str) -> str:
    """By which the losses of a part of a block are kept."""
    return f"{block} {part}"


def cut_measure(cuts: Cuts) -> Measure:
    """What the sweep observes for heads and channels."""
    if cuts.items:
        return measure_of(cuts.items, "reconstruction", DAMPING, counts=True)

    def nothing(_: BlockAnatomy, __: Callable[[str], Tensor]) -> dict[str, Observer]:
        return {}

    return nothing


def cut_losses(cuts: Cuts, measured: Mapping[str, Tensor]) -> CutLosses:
    """Of heads and channels, by what :func:`cut_measure` found; without those that have no bound."""
    found: CutLosses = {}
    for item in cuts.items:
        losses = dict(zip(item.counts, measured[refitted(item)].tolist(), strict=True))
        kept = {str(count): losses[count] for count in cuts.levels(item) if isfinite(losses[count])}
        found[part_name(*item.key)] = kept
    return found


def drop_losses(cuts: Cuts, stage: Stage) -> CutLosses:
    """Of each block that may go, keeping 0."""
    if not cuts.drops:
        return {}
    text = stage.text("fit")
    batches = text.spread(max(1, _DROP_TOKENS // text.length)).batches
    runner = BlockRunner(Skeleton(stage.source, stage.device), BatchSplitter(stage.progress.note))
    inputs = Stream.capture(stage.directory / "drops", runner.skeleton, batches)
    found = damages_without(runner, inputs, stage.progress)
    inputs.drop(0)
    # Of unit vectors the squared distance is twice what is missing to a cosine of 1.
    scale = 2.0 if stage.source.anatomy.kind == "encoder" else 1.0
    return {part_name(block, BLOCK): {"0": max(0.0, scale * found[block])} for block in cuts.drops}
