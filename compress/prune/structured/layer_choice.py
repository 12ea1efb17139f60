"""Which layers can go: by how little each turns the hidden states, as a run, or by what the model loses.

- ``influence``: one less the mean cosine of what enters and leaves a block (Men et al. 2024, "ShortGPT:
  Layers in Large Language Models are More Redundant Than You Expect", arXiv 2403.03853); the lowest go.
- ``contiguous``: the same of a run of blocks, which go together (Gromov et al. 2024, "The Unreasonable
  Ineffectiveness of the Deeper Layers", arXiv 2403.17887).
- ``greedy``: one after another, each time the block without which the output is closest to the original's:
  by KL, or for an encoder by cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ....terminal import Progress
from ...pipeline.damage_probe import divergences
from .model_batches import Passage, States

Criterion = Literal["influence", "contiguous", "greedy"]

# Whether what is left without the given blocks is little enough.
Enough = Callable[[Sequence[int]], bool]


@dataclass(frozen=True)
class Choice:
    """The blocks that go, ascending, and what the choice was made by: a number for each step."""

    removed: list[int]
    scores: list[float]


def turning(before: Tensor, after: Tensor) -> float:
    """One less the mean cosine of the rows ``[tokens, hidden]``."""
    return 1 - float(torch.nn.functional.cosine_similarity(before, after, dim=-1).mean())


def least_influence(states: Sequence[Tensor], enough: Enough) -> Choice:
    """Blocks in ascending influence until it is enough; ``states`` are rows at each entrance, and the end."""
    scores = [turning(before, after) for before, after in pairwise(states)]
    order = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    count = next(n for n in range(1, len(order) + 1) if enough(order[:n]))
    return Choice(sorted(order[:count]), scores)


def least_run(states: Sequence[Tensor], enough: Enough) -> Choice:
    """The shortest run that is enough; of several, the one that turns the states least."""
    blocks = len(states) - 1
    for length in range(1, blocks + 1):
        runs = [list(range(start, start + length)) for start in range(blocks - length + 1)]
        fitting = [run for run in runs if enough(run)]
        if fitting:
            scores = [turning(states[run[0]], states[run[-1] + 1]) for run in fitting]
            return Choice(fitting[scores.index(min(scores))], scores)
    raise AssertionError("all blocks are enough")


def greedy(passage: Passage, enough: Enough, progress: Progress) -> Choice:
    """One block after another by the measured damage of the whole model."""
    kept = list(range(len(passage.modules)))
    reached = _reached(passage, kept, [passage.entrance])
    original = passage.rows(reached[-1])
    removed: list[int] = []
    scores: list[float] = []
    with progress.task("choosing layers", len(kept)) as task:
        while not removed or not enough(removed):
            found = [
                _damage(passage, original, kept[place + 1 :], reached[place]) for place in range(len(kept))
            ]
            place = found.index(min(found))
            scores.append(found[place])
            removed.append(kept.pop(place))
            task.advance(1, f"without block {removed[-1]}: {scores[-1]:.3g}")
            reached = _reached(passage, kept[place:], reached[: place + 1])
    return Choice(sorted(removed), scores)


def _reached(passage: Passage, blocks: Sequence[int], known: Sequence[States]) -> list[States]:
    """The states ``known`` at the entrances so far, and those at all that follow."""
    reached = list(known)
    for index in blocks:
        reached.append(passage.through(index, reached[-1]))
    return reached


def _damage(passage: Passage, original: Tensor, blocks: Sequence[int], states: States) -> float:
    for index in blocks:
        states = passage.through(index, states)
    (found,) = divergences(passage.skeleton, [original, passage.rows(states)])
    return float(found["kl"] if "kl" in found else found["distance"])
