"""SignRound: the rounding of every weight and the clipping of every group learned, a block at a time.

Cheng et al. 2023, "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs", arXiv
2309.05516 (the method of AutoRound). All layers of a block learn together, so that each may compensate the
others: the loss is the squared distance of the block's output from what the original model has here. Steps
follow the sign of the gradients at a linearly falling rate, and the best of all iterates is kept
(:mod:`edgepress.compress.solve.learned_rounding`). Two things go beyond the paper:

- It begins with the codes that a pass before has found, if there is one (``gptq``, then ``autoround``).
- ``loss: relative`` divides the distance of each token by the size of its hidden state, as the norm at the
  input of the next block will: a few tokens of huge states do not drown the others.

Batches and targets are read from disk one at a time and nothing of the whole calibration text is held.
``low_memory`` also runs each sequence of a batch alone, so that only its activations wait for the way back;
a block whose batches do not fit the device is learned that way in any case.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...errors import OutOfResource
from ..measure.reading import Precision, computes_in_bfloat16
from ..model.block_anatomy import Linear
from ..numbers.fake_quant import unwrap, wrap
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.advance import Work, weights_of
from ..pipeline.algorithm import Fixed, float_bytes
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass
from ..solve.block_descent import (
    BlockDescent,
    Descent,
    DescentSettings,
    Loss,
    first_codes,
    original_weight,
    pairs,
)
from ..solve.learned_rounding import LearnedRounding

# A step in units of the matrix products of a forward pass: measured where bfloat16 is fast, and where not.
_STEP_BFLOAT16, _STEP = 2.0, 4.0
_STEP_IN_ROUNDINGS = 10  # to offsets and clips, on all weights


class Autoround(BlockPass):
    """Options of ``autoround``."""

    reads_batches = True
    compares = True
    learns = True
    fixed: ClassVar[Mapping[str, Fixed]] = {
        "search": Fixed(
            "mse", "clip factors learn from there, and codes of the pass before stay as they are"
        ),
        "start": Fixed("codes", "codes that a pass before has found are the better start"),
        "inputs": Fixed("quantized", "what the block will read"),
        "learning_rate": Fixed(None, "1 / iterations, the paper's: an offset can just cross its range"),
        "clip_rate": Fixed(None, "the learning rate of the offsets, as in the paper"),
    }
    scheme: SchemeOption
    schemes: dict[str, SchemeOption] = Field(
        {}, description="scheme of single layers by name, in place of `scheme`"
    )
    loss: Loss = Field(
        "relative", description="squared error of the block's output, or relative to each token's size"
    )
    iterations: int = Field(100, ge=0, le=10_000, description="steps for each block, one batch each")
    precision: Precision = Field(
        "auto", description="autocast type; auto is bfloat16 where the processor computes in it"
    )
    low_memory: bool = Field(
        False, description="whether each sequence of a batch goes through the block alone"
    )

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def scheme_of(self, linear: Linear) -> Scheme:
        return self.schemes.get(linear.name, self.scheme)

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Offsets and gradients of all layers, their best codes, where it is fast their weights in bfloat16,
        and a gradient of one.
        """
        sizes = [float_bytes(linear) for linear in layers]
        halves = sum(sizes) // 2 if self._fast else 0
        return 2 * sum(sizes) + sum(sizes) // 4 + halves + 2 * max(sizes)

    @property
    def alone(self) -> bool:
        return self.low_memory

    @property
    def lighter(self) -> str:
        return "" if self.low_memory else "low_memory: true"

    @property
    def _fast(self) -> bool:
        return self.precision != "float32" and computes_in_bfloat16(torch.device("cpu"))

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """A forward and a backward pass for each step, and the first loss of each batch."""
        weights = sum(float_bytes(linear) / 4 for group in groups for linear in group)
        step = self._work(weights, min(tokens, batch_tokens), learning=True)
        first = min(tokens, self.iterations * batch_tokens)
        steps = Work(self.iterations * step.products, roundings=self.iterations * step.roundings)
        return steps + Work(weights * first, roundings=weights * self.roundings)

    def _work(self, weights: float, tokens: int, learning: bool) -> Work:
        """What a batch of so many ``tokens`` takes."""
        if not learning:
            return Work(weights * tokens)
        step = _STEP_BFLOAT16 if self._fast else _STEP
        return Work(weights * step * tokens, roundings=weights * _STEP_IN_ROUNDINGS)

    def apply(self, block: Block) -> None:
        layers = list(filter(self.selects, block.anatomy.linears()))
        if not layers:
            return
        weights = {linear.name: original_weight(block, linear) for linear in layers}
        try:
            descent = self._learn(block, layers, weights, alone=self.low_memory)
        except torch.OutOfMemoryError as error:
            descent = self._alone(block, layers, weights, error)
        for linear in layers:
            tensor, wanted = descent.tensors[linear.name], weights[linear.name]
            block.quantize(linear, tensor, "autoround", *_status(descent), wanted=wanted)

    def _alone(
        self, block: Block, layers: Sequence[Linear], weights: Mapping[str, Tensor], error: Exception
    ) -> Descent:
        """What is left to try after ``error``, which says that memory was too short."""
        if not self.low_memory:
            try:
                return self._learn(block, layers, weights, alone=True)
            except torch.OutOfMemoryError as second:
                error = second
        raise OutOfResource(
            "learning from one calibration sequence at a time does not fit the device's memory",
            why=str(error).splitlines()[0],
            fix="use a smaller --length or --device cpu",
        ) from error

    def _learn(
        self, block: Block, layers: Sequence[Linear], weights: Mapping[str, Tensor], *, alone: bool
    ) -> Descent:
        """The layers with their rounding learned from ``weights``, what they are to stand for."""
        roundings = {linear.name: self._rounding(block, linear, weights[linear.name]) for linear in layers}
        rate, read = 1 / max(self.iterations, 1), sum(map(weights_of, layers))
        settings = DescentSettings(
            pairs=lambda: pairs(block),
            steps=self.iterations,
            rate=rate,
            clip_rate=rate,
            loss=self.loss,
            precision=self.precision,
            alone=alone,
            seen=lambda tokens, learning: block.tick(self._work(read, tokens, learning).multiplications),
        )
        with _rounded_inputs(block, [one for one in layers if self.scheme_of(one).activations]):
            return BlockDescent(block, roundings, settings).run()

    def _rounding(self, block: Block, linear: Linear, weight: Tensor) -> LearnedRounding:
        start = first_codes(block, linear, weight, self.scheme_of(linear))
        return LearnedRounding(weight, start, block.masks.get(linear.name))


def _status(descent: Descent) -> tuple[str, str]:
    if not descent.ratios:
        return "fallback-start", f"the loss of the block is {descent.first:.3g} before anything is learned"
    detail = f"the block's loss fell to {descent.ratios[descent.best]:.0%} by step {descent.best}"
    return "ok", detail if descent.best else "no step was better than the start"


@contextmanager
def _rounded_inputs(block: Block, layers: Sequence[Linear]) -> Iterator[None]:
    """The block with the inputs of ``layers`` rounded a token."""
    names = [block.local(linear.name) for linear in layers]
    for name in names:
        wrap(block.module, name)
    try:
        yield
    finally:
        for name in names:
            unwrap(block.module, name)


PASS = Autoround
