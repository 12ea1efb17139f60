"""Quantization-aware training a block at a time: its codes and scales learn to give its original output.

The first phase of EfficientQAT (Chen et al. 2024, arXiv 2407.11062), which trains all weights and step sizes
of a block; its second, from end to end, is ``tune`` or ``qat`` after it. Weights are quantized in every
forward pass and learn through the float weight behind them, step sizes by LSQ. No more than a block is in
memory, as in any sweep. An eighth of the batches is held out, and what does best there is kept: at worst the
start.

With ``distance: fisher`` an error of the output counts by its Fisher information, as in BRECQ (Li et
al. 2021, arXiv 2102.05426) but between dimensions too. That is measured ahead, on the whole model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..measure.fisher import Measure
from ..measure.reading import Precision, autocast
from ..measure.sensitivity import OutputFisher
from ..model.anatomy import Anatomy
from ..model.block_anatomy import Linear
from ..numbers.fake_quant import TokenQuantLinear
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.advance import Work
from ..pipeline.algorithm import Fixed, float_bytes
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass
from ..pipeline.forward import Batch, block_output
from ..solve.block_descent import Pair, first_codes, original_weight, pairs
from ..train.optimization import assign
from ..train.students.lsq_linear import LsqLinear, on_its_side
from ..train.students.relative import Learned, learn
from ..train.training_options import TrainingSection, own_training

_FISHER = "output_fisher"
_HELD_OUT = 8
_LATENT_UNIT = 4.0


class BlockTraining(TrainingSection):
    """The part of the ``training`` section that a block trains by."""

    learning_rate: float = Field(
        2e-2, gt=0, le=0.1, description="learning rate, relative to the size of each parameter"
    )
    epochs: int = Field(4, ge=1, le=1000, description="how often each block learns from the text")
    precision: Precision = Field(
        "auto", description="autocast type; auto is bfloat16 where the processor computes in it"
    )


class BlockQat(BlockPass):
    """Options of ``block_qat``."""

    reads_batches = True
    compares = True
    learns = True
    fixed: ClassVar[Mapping[str, Fixed]] = {
        "search": Fixed("mse", "scales learn from there, and codes of the pass before are taken as they are")
    }
    scheme: SchemeOption
    distance: Literal["relative", "fisher"] = Field(
        "relative",
        description="error of the block's output: relative to its size, or under its Fisher information",
    )
    fisher_tokens: int = Field(
        32_768, ge=1, description="calibration tokens that the Fisher information is measured on"
    )
    training: BlockTraining = Field(
        BlockTraining(), description="how each block trains: epochs, learning_rate and precision"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, data: Any) -> Any:
        return own_training(cls, data)

    @property
    def prepared_tokens(self) -> int | None:
        return self.fisher_tokens if self.distance == "fisher" else None

    @classmethod
    def prepare(cls, anatomy: Anatomy) -> Measure:
        """The Fisher information of each block's output."""
        return lambda block, weight: {_FISHER: OutputFisher(block.prefix, anatomy.hidden_size)}

    def prepared_bytes(self, anatomy: Anatomy) -> int:
        return 4 * anatomy.hidden_size**2

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Latent weights with their change, gradient, two moments and best, and two copies of a layer."""
        sizes = [float_bytes(linear) for linear in layers]
        return 8 * sum(sizes) + 2 * max(sizes)

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """A forward and a backward pass over the text for each epoch, and the held-out loss."""
        weights = sum(float_bytes(linear) / 4 for group in groups for linear in group)
        return Work(weights * self.training.epochs * 3.2 * tokens, roundings=weights * self.roundings)

    def apply(self, block: Block) -> None:
        layers = list(filter(self.selects, block.anatomy.linears()))
        if not layers:
            return
        targets = {linear.name: original_weight(block, linear) for linear in layers}
        modules = {linear.name: self._module(block, linear, targets[linear.name]) for linear in layers}
        plain = {linear.name: block.linears[linear.name] for linear in layers}
        for linear in layers:
            self._place(block, linear, modules[linear.name])
        losses = _BlockTrainer(block, _learned(modules), self).run()
        for linear in layers:
            block.module.set_submodule(block.local(linear.name), plain[linear.name])
            tensor, wanted = modules[linear.name].tensor(), targets[linear.name]
            block.quantize(linear, tensor, "block_qat", *_status(losses), wanted=wanted)

    def _module(self, block: Block, linear: Linear, target: Tensor) -> LsqLinear:
        start = first_codes(block, linear, target, self.scheme)
        bias, mask = block.linears[linear.name].bias, block.masks.get(linear.name)
        return LsqLinear(start, None if bias is None else bias.detach(), target, mask)

    def _place(self, block: Block, linear: Linear, module: nn.Module) -> None:
        rounded = TokenQuantLinear(module) if self.scheme.activations else module
        block.module.set_submodule(block.local(linear.name), rounded)


def _status(losses: list[float]) -> tuple[str, str]:
    if losses and losses[0] > 0:
        return "ok", f"the block's held-out loss fell to {min(losses) / losses[0]:.0%}"
    detail = "no error to learn from; after a stage that quantized: the same samples make it one"
    return "fallback-start", detail if losses else ""


def _learned(modules: dict[str, LsqLinear]) -> list[Learned]:
    found = []
    for name, module in modules.items():
        start = module.scale.detach().clone()
        unit = _LATENT_UNIT * start.abs().unsqueeze(-1)
        found.append(learn(f"{name}.latent", module, "latent", unit, lambda value: value))
        found.append(
            learn(f"{name}.weight_scale", module, "scale", start.abs(), partial(on_its_side, start=start))
        )
    return found


class _BlockTrainer:
    """Trains one block, whose quantized layers are in their places."""

    def __init__(self, block: Block, learned: Sequence[Learned], options: BlockQat) -> None:
        self.block, self.options = block, options
        self.parameters = [change for one in learned for change in one.changes]
        self.device = self.parameters[0].device
        self.root = None
        if options.distance == "fisher":
            fisher = block.prepared[_FISHER]
            self.root = torch.linalg.cholesky(fisher).to(self.device)

    def _pairs(self, *, held_out: bool) -> Iterator[Pair]:
        for index, pair in enumerate(pairs(self.block)):
            if (index % _HELD_OUT == _HELD_OUT - 1) == held_out:
                yield pair

    def run(self) -> list[float]:
        """Held-out losses, before and after each epoch; the parameters are then the best ones. Empty where
        the first is not finite, and no other where it is zero.
        """
        judged = list(self._pairs(held_out=True)) or list(self._pairs(held_out=False))[:1]
        optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
        losses, best = [self._mean(judged)], self._state()
        if not math.isfinite(losses[0]):
            return []
        if losses[0] == 0:
            return losses
        count = sum(1 for _ in self._pairs(held_out=False))
        for epoch in range(self.options.training.epochs):
            for index, pair in enumerate(self._pairs(held_out=False)):
                done = (epoch * count + index) / (self.options.training.epochs * count)
                self._step(pair, optimizer, 0.5 * (1 + math.cos(math.pi * done)))
            losses.append(self._mean(judged))
            if losses[-1] <= min(losses):
                best = self._state()
        assign(self.parameters, best)
        return [loss for loss in losses if math.isfinite(loss)]

    def _state(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def _step(self, pair: Pair, optimizer: Any, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate * self.options.training.learning_rate
        optimizer.zero_grad()
        loss = self._loss(*pair)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()

    def _mean(self, pairs: Sequence[Pair]) -> float:
        with torch.no_grad():
            return sum(float(self._loss(*pair)) for pair in pairs) / len(pairs)

    def _loss(self, batch: Batch, target: Tensor) -> Tensor:
        """Mean over real tokens of the squared distance, in units of the token's own size; weighed by
        the Fisher information of the block's output where that was asked for.
        """
        with autocast(self.options.training.precision, self.device):
            output = block_output(self.block.module, batch)
        error = output.to(torch.float32) - target
        error = error if self.root is None else error @ self.root
        size = target.square().mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
        distance = error.square().mean(-1) / size
        return distance.mean() if batch.mask is None else distance[batch.mask].mean()


PASS = BlockQat
