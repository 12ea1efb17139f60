"""Signed gradient descent on the rounding of a block's layers: a batch a step, the best iterate kept.

An iterate is judged by its loss beside that of the first iterate on the same batch, so that batches which are
harder than others do not decide what is best.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Literal

import torch
from torch import Tensor

from ..measure.reading import Precision, autocast
from ..model.block_anatomy import Linear
from ..numbers.grid import quantize
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from ..pipeline.block import Block
from ..pipeline.forward import Batch, block_output, same_mask
from .learned_rounding import LearnedRounding

Loss = Literal["mse", "relative"]
Roundings = Mapping[str, LearnedRounding]
# A batch of block inputs, and the output [batch, tokens, hidden] wanted.
Pair = tuple[Batch, Tensor]


@dataclass(frozen=True)
class DescentSettings:
    """Training data and rates of a descent.

    Attributes:
        rate, clip_rate: of the first step, for offsets and clip factors; they fall linearly to zero.
        alone: each sequence goes through the block alone.
        seen: receives the tokens of each batch, and whether something was learned from them.
    """

    pairs: Callable[[], Iterator[Pair]]
    steps: int
    rate: float
    clip_rate: float
    loss: Loss
    precision: Precision
    alone: bool
    seen: Callable[[int, bool], None]


@dataclass
class Descent:
    """How a descent went.

    Attributes:
        first: mean loss of the first iterate. ratios: loss of each iterate over that of the first one on the
            same batch.
        best: the iterate that was kept, 0 for the first; tensors: its codes, by the names of the linears.
    """

    first: float
    tensors: Mapping[str, QTensor]
    ratios: list[float] = field(default_factory=list)
    best: int = 0


def original_weight(block: Block, linear: Linear) -> Tensor:
    """What the codes of a layer are to stand for ``[out, in]``: its weight before this sweep quantized it.

    It does not change with the block's weights: that of the block as it was where that is the same, which
    needs no memory of its own.
    """
    weight = block.weight(linear)
    if block.original is None:
        return weight.clone()
    original = block.original.get_parameter(f"{block.local(linear.name)}.weight").detach().to(torch.float32)
    if linear.name not in block.quantized:
        return original if torch.equal(original, weight) else weight.clone()
    mask = block.masks.get(linear.name)
    return original if mask is None else original * mask


def first_codes(block: Block, linear: Linear, weight: Tensor, scheme: Scheme) -> QTensor:
    """The codes that a pass before has found in ``scheme``, else ``weight [out, in]`` rounded to nearest."""
    start = block.quantized.get(linear.name)
    if start is None or start.scheme != scheme:
        start = quantize(weight, scheme, mask=block.masks.get(linear.name))
    return start


def pairs(block: Block) -> Iterator[Pair]:
    """What goes into the block and what the original model gives behind it, for each batch with a token."""
    for batch, target in zip(block.batches(), block.targets(), strict=True):
        batch, target = same_mask(batch, target)
        if batch.mask is None or bool(batch.mask.any()):
            yield batch, target.hidden


class BlockDescent:
    """Learns ``roundings``, by the names of their linears, in the place of the weights of ``block``."""

    def __init__(self, block: Block, roundings: Roundings, settings: DescentSettings) -> None:
        self.block, self.roundings, self.settings = block, roundings, settings
        self.weights = {name: block.linears[name].weight for name in roundings}
        self.device = next(block.module.parameters()).device

    def run(self) -> Descent:
        """Descend, and return the best iterate. A loss that is not finite ends it."""
        settings = self.settings
        self._write(learning=False)
        first = [self._loss(*pair) for pair in islice(settings.pairs(), settings.steps + 1)]
        found = Descent(sum(first) / len(first) if first else math.nan, self._tensors())
        if not math.isfinite(found.first) or min(first) <= 0:
            return found
        again = chain.from_iterable(settings.pairs() for _ in repeat(None))
        for step, pair in enumerate(islice(again, settings.steps + 1)):
            self._write(learning=step < settings.steps)
            ratio = self._loss(*pair) / first[step % len(first)]
            if not math.isfinite(ratio):
                break
            found.ratios.append(ratio)
            if ratio < found.ratios[found.best]:
                found.best, found.tensors = step, self._tensors()
            if step < settings.steps:
                self._move(1 - step / settings.steps)
        self._learning(False)
        return found

    def _tensors(self) -> dict[str, QTensor]:
        return {name: rounding.tensor() for name, rounding in self.roundings.items()}

    def _write(self, *, learning: bool) -> None:
        """Round the weights of the block as they are to be now; they gather gradients where they learn."""
        self._learning(False)
        for name, rounding in self.roundings.items():
            rounding.write(self.weights[name])
        self._learning(learning)

    def _learning(self, learning: bool) -> None:
        for weight in self.weights.values():
            weight.requires_grad_(learning).grad = None

    def _loss(self, batch: Batch, target: Tensor) -> float:
        """The mean loss of a real token of ``batch``; adds its gradient where the weights learn."""
        learning = any(weight.requires_grad for weight in self.weights.values())
        parts = batch.hidden.shape[0] if self.settings.alone else 1
        parted, total = batch.split(parts), 0.0
        tokens = target.shape[:2].numel() if batch.mask is None else int(batch.mask.sum())
        for part, wanted in zip(parted, torch.split(target, -(-len(target) // parts)), strict=True):
            with torch.set_grad_enabled(learning), autocast(self.settings.precision, self.device):
                output = block_output(self.block.module, part)
            loss = self._distance(output, wanted, part.mask) / tokens
            if learning:
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self.settings.seen(target.shape[:2].numel(), learning)
        return total

    def _distance(self, output: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
        """The summed loss of the real tokens."""
        distance = (output.to(torch.float32) - wanted).square().mean(-1)
        if self.settings.loss == "relative":
            distance = distance / wanted.square().mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
        return distance.sum() if mask is None else distance[mask].sum()

    def _move(self, rate: float) -> None:
        """A step of ``rate`` times the first one's."""
        for name, rounding in self.roundings.items():
            gradient, self.weights[name].grad = self.weights[name].grad, None
            if gradient is not None:
                rounding.learn(gradient, rate * self.settings.rate, rate * self.settings.clip_rate)
