"""Which layers can go, and the closed-form refit of the linear before them.

The choice:

- ``influence``: one less the mean cosine of what enters and leaves a block (Men et al. 2024, "ShortGPT:
  Layers in Large Language Models are More Redundant Than You Expect", arXiv 2403.03853); the lowest go.
- ``contiguous``: the same of a run of blocks, which go together (Gromov et al. 2024, "The Unreasonable
  Ineffectiveness of the Deeper Layers", arXiv 2403.17887).
- ``greedy``: one after another, each time the block without which the output is closest to the original's:
  by KL, or for an encoder by cosine.

Each stack of an encoder–decoder keeps a block, and a run lies in one stack.

The refit: of the last block before a cut, down (and its bias) is fitted by least squares to its own inputs,
so that what leaves the block is closest to what left the last dropped one in the original, with all that
earlier cuts have changed counted in. As in Shopkhoev et al. 2025, "ReplaceMe: Network Simplification via
Depth Pruning and Transformer Block Linearization", arXiv 2505.02819, the map is folded into a matrix that is
there already; here it is that matrix itself that is fitted, from its inputs on.

Streams run through one loaded block after another; no more than that is in memory.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ....errors import RecipeError
from ....terminal.progress import Progress
from ...model.block_anatomy import BlockAnatomy
from ...model.skeleton import Skeleton
from ...pipeline.block_inputs import BlockRunner, Stream, real_rows
from ...pipeline.damage_probe import divergences
from ...pipeline.forward import Batch
from .residual_fit import Fitted, ResidualError, fit_residual, inputs_and_output, norm_after

LayerCriterion = Literal["influence", "contiguous", "greedy"]

# Whether what is left without the given blocks is little enough.
Enough = Callable[[Sequence[int]], bool]
# The blocks of each stack that may lose some, by number.
Stacks = Sequence[range]

# Channels that the norm scales by less than this fraction of its largest are left as they are.
_LEAST_SCALE = 1e-2


@dataclass(frozen=True)
class LayerChoice:
    """The blocks that go, ascending, and what the choice was made by: a number for each step."""

    removed: list[int]
    scores: list[float]


def given(removed: Sequence[int], stacks: Stacks) -> Sequence[int]:
    """The blocks ``removed``, which a recipe names."""
    for place, index in enumerate(removed):
        if index in removed[:place] or not any(index in stack for stack in stacks):
            known = ", ".join(f"{stack.start} to {stack.stop - 1}" for stack in stacks)
            raise RecipeError(
                f"layers: removed names block {index}, which is not there or was named before",
                fix=f"give each of them once, of {known}",
            )
    if any(set(stack) <= {*removed} for stack in stacks):
        raise RecipeError("layers: removed names every block of a stack", fix="leave one of them out")
    return removed


def lowest(scores: Sequence[float], stacks: Stacks, enough: Enough) -> LayerChoice:
    """Blocks in ascending order of their ``scores``, until it is enough; the last of a stack stays."""
    removed: list[int] = []
    for index in sorted(range(len(scores)), key=lambda index: (scores[index], index)):
        if removed and enough(removed):
            break
        removed += [index] if index in removable(stacks, removed) else []
    return LayerChoice(sorted(removed), list(scores))


def removable(stacks: Stacks, removed: Sequence[int]) -> list[int]:
    """The blocks that may go when those in ``removed`` have gone."""
    left = [[index for index in stack if index not in removed] for stack in stacks]
    return [index for stack in left if len(stack) > 1 for index in stack]


def shortest_runs(stacks: Stacks, enough: Enough) -> list[list[int]]:
    """The shortest runs within one of ``stacks`` without which it is enough, all of one length; none where a
    whole stack would not be.
    """
    for length in range(1, max(map(len, stacks))):
        starts = [start for stack in stacks for start in range(stack.start, stack.stop - length + 1)]
        runs = [list(range(start, start + length)) for start in starts]
        inner = [run for run in runs if all(set(run) != set(stack) for stack in stacks)]
        fitting = [run for run in inner if enough(run)]
        if fitting:
            return fitting
    return []


def choose(
    criterion: LayerCriterion,
    runner: BlockRunner,
    inputs: Stream,
    stacks: Stacks,
    enough: Enough,
    progress: Progress,
) -> LayerChoice:
    """The blocks that go by ``criterion``; ``inputs`` are those of the first block, which stay."""
    if criterion == "greedy":
        return greedy(runner, inputs, stacks, enough, progress)
    if criterion == "influence":
        runs = [[index] for index in range(len(runner.blocks))]
        return lowest(_turned(runner, inputs, runs, progress), stacks, enough)
    runs = shortest_runs(stacks, enough)
    scores = _turned(runner, inputs, runs, progress)
    return LayerChoice(runs[scores.index(min(scores))], scores)


def _turned(
    runner: BlockRunner, inputs: Stream, runs: Sequence[Sequence[int]], progress: Progress
) -> list[float]:
    """How much each of ``runs``, all of one length, turns the hidden states: one less their mean cosine.

    On disk are the inputs of as many blocks as a run has, and those of the first.
    """
    blocks, length, scores = len(runner.blocks), len(runs[0]), []
    starts = {run[0] for run in runs}
    with progress.task("measuring layers", blocks) as task:
        for index in range(blocks):
            with runner.loaded(index) as module:
                runner.advance(inputs, index, module, keep=True)
            start = index + 1 - length
            if start in starts:
                scores.append(turning(inputs, start, index + 1))
            if start > 0:
                inputs.drop(start)
            task.advance(1)
    for index in range(max(1, blocks + 1 - length), blocks + 1):
        inputs.drop(index)
    return scores


def turning(stream: Stream, before: int, after: int) -> float:
    """One less the mean cosine of the states of real tokens that enter the block ``before``, and of those
    that leave the last one in front of ``after``.
    """
    sides = zip(stream.rows(before), map(real_rows, stream.left(after - 1)), strict=True)
    cosines = [torch.nn.functional.cosine_similarity(*rows, dim=-1) for rows in sides]
    return 1 - float(torch.cat(cosines).mean())


def greedy(
    runner: BlockRunner, inputs: Stream, stacks: Stacks, enough: Enough, progress: Progress
) -> LayerChoice:
    """One block after another, by the measured damage of the whole model without it."""
    kept = list(range(len(runner.blocks)))
    original: Tensor | None = None
    removed: list[int] = []
    scores: list[float] = []
    with progress.task("choosing layers", len(kept)) as task:
        while not removed or not enough(removed):
            tried = removable(stacks, removed)
            whole, without = _without_each(runner, inputs, kept, tried)
            original = whole if original is None else original
            found = [_damage(runner, original, rows) for rows in without]
            scores.append(min(found))
            removed.append(tried[found.index(scores[-1])])
            kept.remove(removed[-1])
            task.advance(1, f"without block {removed[-1]}: {scores[-1]:.3g}")
    return LayerChoice(sorted(removed), scores)


def damages_without(runner: BlockRunner, inputs: Stream, progress: Progress) -> dict[int, float]:
    """The measured damage of the whole model without each block that may go first, by its number; nothing is
    repaired. ``inputs`` are those of the first block, which stay.
    """
    tried = removable(runner.skeleton.anatomy.ranges(), ())
    with progress.task("measuring without each block", 1) as task:
        whole, without = _without_each(runner, inputs, range(len(runner.blocks)), tried)
        found = {index: _damage(runner, whole, rows) for index, rows in zip(tried, without, strict=True)}
        task.advance(1)
    return found


def _without_each(
    runner: BlockRunner, inputs: Stream, kept: Sequence[int], tried: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """What leaves the last of the blocks ``kept``, rows ``[tokens, hidden]``; and what does without each of
    those ``tried``.

    All go forward together, so that each block is loaded once.
    """
    end = len(runner.blocks)
    whole, without = inputs.fork("whole", 0, kept[0]), list[Stream]()
    for index, following in zip(kept, [*kept[1:], end], strict=True):
        skipping = [whole.fork(f"without-{index:04d}", index, following)] if index in tried else []
        with runner.loaded(index) as module:
            for stream in (whole, *without):
                runner.advance(stream, index, module, following)
        without += skipping
    rows = [torch.cat(list(stream.rows(end))) for stream in (whole, *without)]
    for stream in (whole, *without):
        stream.drop(end)
    return rows[0], rows[1:]


def _damage(runner: BlockRunner, original: Tensor, rows: Tensor) -> float:
    (found,) = divergences(runner.skeleton, [original, rows])
    return float(found["kl"] if "kl" in found else found["distance"])


def refit(
    skeleton: Skeleton, block: BlockAnatomy, states: Stream, wanted: Iterable[Batch], damping: float | None
) -> Fitted:
    """Fit the last linear of ``block``, which is loaded, so that for ``states`` it leaves what is ``wanted``
    of each batch; the module is not changed.

    A block that normalizes at its end (BERT) is fitted before that norm: its output is taken back through the
    norm with the mean and deviation that the residual stream has now. ``damping`` as in
    :func:`~edgepress.compress.solve.damped_cholesky.fit_halves`.
    """
    linear, norm = block.last, norm_after(block, block.last)
    module, down = skeleton.submodule(block.prefix), skeleton.submodule(linear.name)
    halves, watched = ResidualError.halves(linear, skeleton.device), {"rows": down}
    if norm is not None:
        watched["sum"] = skeleton.submodule(norm.name)
    targets = (batch.hidden for batch in wanted)
    for number, (batch, target) in enumerate(zip(states.raw(block.index), targets, strict=True)):
        found = inputs_and_output(module, watched, batch)
        missing = target - found["output"]
        if norm is not None:
            missing = _before_norm(watched["sum"], found["sum"], target)
        halves[number % 2].add(found["rows"], missing, batch.mask)
    weight = down.get_parameter("weight")
    kept = torch.arange(linear.in_features, device=weight.device)
    return fit_residual(halves, weight, down.get_parameter("bias") if linear.bias else None, kept, damping)


def _before_norm(norm: nn.Module, total: Tensor, wanted: Tensor) -> Tensor:
    """What has to be added to ``total``, the input of a LayerNorm, for the output ``wanted`` at its own mean
    and deviation.
    """
    scale, offset = norm.get_parameter("weight"), norm.get_parameter("bias")
    mean = total.mean(-1, keepdim=True)
    deviation = total.var(-1, keepdim=True, unbiased=False).sqrt()
    usable = scale.abs() > _LEAST_SCALE * scale.abs().max()
    needed = (wanted - offset) / torch.where(usable, scale, torch.ones_like(scale)) * deviation + mean
    return torch.where(usable, needed - total, torch.zeros_like(total))
