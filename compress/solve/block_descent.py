"""Signed gradient descent on the rounding of a block's layers: a batch a step, the best iterate kept.

An iterate is judged by its loss beside that of the first iterate on the same batch, so that batches which are
harder than others do not decide what is best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Literal

import torch
from torch import Tensor, nn

from ..measure.precision import Precision, autocast
from ..pipeline.block import Block
from ..pipeline.forward import Batch, block_output
from .learned_rounding import LearnedRounding

Loss = Literal["mse", "relative"]
Roundings = Mapping[str, LearnedRounding]
# A batch at the entrance of the block, and the output [batch, tokens, hidden] wanted.
Pair = tuple[Batch, Tensor]


@dataclass(frozen=True)
class Course:
    """What is learned from, and how fast.

    Attributes:
        rate, clip_rate: of the first step, for offsets and clip factors; they fall linearly to zero.
        alone: each sequence goes through the block alone.
    """

    pairs: Callable[[], Iterator[Pair]]
    steps: int
    rate: float
    clip_rate: float
    loss: Loss
    precision: Precision
    alone: bool


@dataclass
class Descent:
    """How a descent went.

    Attributes:
        first: mean loss of the first iterate. shares: loss of each iterate as a share of the first one's.
        best: the iterate that was kept, 0 for the first.
    """

    first: float
    shares: list[float] = field(default_factory=list)
    best: int = 0


class BlockDescent:
    """Learns ``roundings``, by the names of their linears. The weights of the block change meanwhile."""

    def __init__(self, block: Block, roundings: Roundings, course: Course) -> None:
        self.block, self.roundings, self.course = block, roundings, course
        self.device = next(block.module.parameters()).device

    def run(self) -> Descent:
        """Descend; the roundings are then the best iterate. A loss that is not finite ends it."""
        course = self.course
        weights = self._weights(learning=False)
        first = [self._loss(*pair, weights) for pair in islice(course.pairs(), course.steps + 1)]
        found = Descent(sum(first) / len(first) if first else math.nan)
        if not math.isfinite(found.first) or min(first) <= 0:
            return found
        kept = {name: rounding.state() for name, rounding in self.roundings.items()}
        again = chain.from_iterable(course.pairs() for _ in repeat(None))
        for step, pair in enumerate(islice(again, course.steps + 1)):
            weights = self._weights(learning=step < course.steps)
            share = self._loss(*pair, weights) / first[step % len(first)]
            if not math.isfinite(share):
                break
            found.shares.append(share)
            if share < found.shares[found.best]:
                found.best = step
                kept = {name: rounding.state() for name, rounding in self.roundings.items()}
            if step < course.steps:
                self._move(weights, 1 - step / course.steps)
        for name, rounding in self.roundings.items():
            rounding.restore(kept[name])
        return found

    def _weights(self, *, learning: bool) -> dict[str, nn.Parameter]:
        """Put the rounded weights into the block; they gather gradients where they learn."""
        weights = {}
        for name, rounding in self.roundings.items():
            weights[name] = nn.Parameter(rounding.weight(), requires_grad=learning)
            self.block.linears[name].weight = weights[name]
        return weights

    def _loss(self, batch: Batch, target: Tensor, weights: Mapping[str, nn.Parameter]) -> float:
        """The mean loss of a real token of ``batch``; adds its gradient where ``weights`` learn."""
        learning = any(weight.requires_grad for weight in weights.values())
        parts = batch.hidden.shape[0] if self.course.alone else 1
        pieces, total = batch.split(parts), 0.0
        tokens = target.shape[:2].numel() if batch.mask is None else int(batch.mask.sum())
        for piece, wanted in zip(pieces, torch.split(target, -(-len(target) // parts)), strict=True):
            with torch.set_grad_enabled(learning), autocast(self.course.precision, self.device):
                output = block_output(self.block.module, piece)
            loss = self._distance(output, wanted, piece.mask) / tokens
            if learning:
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _distance(self, output: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
        """The summed loss of the real tokens."""
        distance = (output.to(torch.float32) - wanted).square().mean(-1)
        if self.course.loss == "relative":
            distance = distance / wanted.square().mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
        return distance.sum() if mask is None else distance[mask].sum()

    def _move(self, weights: Mapping[str, nn.Parameter], share: float) -> None:
        for name, rounding in self.roundings.items():
            gradient = weights[name].grad
            if gradient is not None:
                rounding.learn(gradient, share * self.course.rate, share * self.course.clip_rate)
