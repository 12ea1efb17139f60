"""``GroupSolving``: what passes have in common that solve the layers with the same inputs together.

The layers of a group are solved from statistics of their inputs: those that the block came with, or those
collected when the groups before it in the block are done (``sequential``).

A ``correction`` compensates the error of earlier layers, which are compressed, so that a layer sees inputs
``x`` where the original model had ``x̃``. Wanted is ``E‖W x̃ − Q x‖²`` least, as in Li et al. 2025, "GPTAQ:
Efficient Finetuning-Free Quantization for Asymmetric Calibration", arXiv 2504.02692, and Zhang et al. 2025,
"Qronos: Correcting the Past by Shaping the Future in Post-Training Quantization", arXiv 2505.11695. With ``G
= E[x xᵀ]`` and ``C = E[(x̃ − x) xᵀ]`` it is, but for a constant, the plain objective ``tr((W* − Q) G (W* −
Q)ᵀ)`` around the least-squares weight ``W* = W + W C G⁻¹``. So every solver of the plain problem solves this
one; GPTAQ's recursion is the same correction made a column at a time, where a column already quantized can no
longer take its part. ``x`` must be what the layer will read, with the earlier layers of its own block
compressed too: against inputs from before that, an error would be compensated twice.

What the calibration tokens say of ``C`` is partly chance: an error that has nothing to do with ``x`` seems
explained by it to a fraction of ``in`` over the number of tokens, all other tokens are made worse by as much,
and from block to block that grows. So what is predicted of each channel's error is shrunk to the fraction
that two halves of the tokens agree on: with ``C_A`` and ``C_B`` of the halves, the diagonal of ``C_A G⁻¹
C_Bᵀ``, in which chance has no part, over that of ``C G⁻¹ Cᵀ``. On SmolLM2 at three bits that leaves a KL of
0.40 where the whole correction leaves more than 0.44 and none 0.51; at eight bits, where almost all is
chance, none is best.

A layer that adds to the residual stream also makes up for what that lacks by then: with ``r̃`` and ``r`` the
stream before it in the original model and in the compressed one, wanted is ``E‖r̃ + W x̃ − r − Q x‖²`` least,
which is ``W* = W + (W C + D) G⁻¹`` with ``D = E[(r̃ − r) xᵀ]``; each row of D is shrunk to what two halves
agree on.

Which layers of a block have their inputs collected in one run of the calibration text through it.

A pass that looks at the inputs of each group of layers once those before it are done runs the text again for
each. Of a mixture that would be two runs an expert. But experts do not read each other: the inputs of gate
and up of all of them are there in one run, and in another those of down, as far as their statistics have
room: beside the block as much as its experts weigh in float32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import BlockAnatomy, Linear
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass
from ..pipeline.statistics import STATISTIC_BYTES
from .damped_cholesky import InverseFactor
from .paced import paced

Inputs = Mapping[str, Tensor]
# The statistics of C.
HALVES = ("cross_gram_of_first_half", "cross_gram_of_second_half")
# Those of D.
RESIDUAL_HALVES = ("residual_cross_gram_of_first_half", "residual_cross_gram_of_second_half")
_ADD_TO_STREAM = ("o", "down", "out")  # roles
DAMPING = 0.01  # fraction of the mean Gram diagonal that is added before factoring
Group = Sequence[Linear]


class GroupSolving(BlockPass):
    """Options of every such pass."""

    correction: float = Field(
        0.0, ge=0, le=1, description="fraction of the error of earlier layers that is compensated; true is 1"
    )
    sequential: bool = Field(
        False,
        description="collect the inputs of each group of layers again once those before it are done; "
        "correction always does",
    )

    @property
    def statistics(self) -> tuple[str, ...]:
        """What each group of layers is solved from."""
        return ("gram", *HALVES) if self.correction else ("gram",)

    @property
    def collects_again(self) -> bool:
        """Whether the inputs of each group are looked at when those before it in the block are done."""
        return self.sequential or self.correction > 0

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.collects_again else self.statistics

    @property
    def reads_batches(self) -> bool:  # type: ignore[override]
        return self.collects_again

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.correction > 0

    @property
    def factors_grams(self) -> bool:
        return True

    def statistics_bytes(self, layers: Sequence[Linear]) -> int:
        """Of the statistics of one group, where they are collected here."""
        wide, of_stream = layers[0].in_features, 2 * float_bytes(layers[0]) * self.corrects_stream(layers)
        asked = sum(STATISTIC_BYTES[name](wide) for name in self.statistics)
        return asked + of_stream if self.collects_again else 0

    def corrects_stream(self, layers: Sequence[Linear]) -> bool:
        """Whether ``layers`` may make up for what the residual stream lacks."""
        return self.correction > 0 and layers[0].role in _ADD_TO_STREAM

    def collected_bytes(self, block: BlockAnatomy) -> int:
        if not self.collects_again or block.experts is None:
            return 0
        runs = collecting_runs(block, self.selects, self.statistics_bytes)
        return max((sum(map(self.statistics_bytes, groups)) for groups in runs), default=0)

    def apply(self, block: Block) -> None:
        for groups in collecting_runs(block.anatomy, self.selects, self.statistics_bytes):
            layers = [linear for group in groups for linear in group]
            wanted = self.statistics
            if self.correction and block.anatomy.stream_reader(layers[0]):
                wanted += RESIDUAL_HALVES
            collected = block.collect(layers, wanted) if self.collects_again else block.statistics
            for group in groups:
                self.solve_group(block, group, collected[group[0].name])

    def solve_group(self, block: Block, layers: list[Linear], inputs: Inputs) -> None:
        """Change ``layers``, whose inputs have the statistics ``inputs``, and leave a status for each."""
        raise TypeError(f"{type(self).__name__} does not define solve_group")


def corrected(
    weight: Tensor,
    inputs: Mapping[str, Tensor],
    factor: InverseFactor,
    order: Tensor,
    strength: float = 1.0,
    tick: Tick = unseen,
) -> Tensor:
    """``W + strength · (W S C + R D) H⁻¹`` ``[out, in]`` for ``weight [out, in]``.

    ``inputs`` has the :data:`HALVES` of C, by which the diagonal S shrinks, and for layers that add to the
    residual stream the :data:`RESIDUAL_HALVES` of D, by which R shrinks. ``factor`` is of H, the damped Gram
    with its channels in ``order [in]``: the damping holds the result to ``weight`` where the inputs tell
    little. ``tick`` receives the multiply-adds that are done.
    """
    reverse = order.flip(0)

    def agreed(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The mean of two halves in the basis of the factor, and the part of each row that they agree on."""
        halves = []
        for name in names:
            with paced(tick, inputs[name].numel() * len(order)):
                halves.append(inputs[name][:, reverse] @ factor.lower.T)
        first, second = halves
        whole = (first + second) / 2
        common, explained = (first * second).sum(1), whole.square().sum(1)
        return whole, (common / explained.clamp(min=torch.finfo(torch.float32).tiny)).clamp(0, 1)

    whole, kept = agreed(HALVES)
    result = weight.clone()
    with paced(tick, 2 * weight.numel() * len(order)):
        change = (weight * kept) @ whole
        del whole
        if RESIDUAL_HALVES[0] in inputs:
            missing, kept = agreed(RESIDUAL_HALVES)
            change += missing.mul_(kept[:, None])
        result[:, reverse] += strength * (change @ factor.lower)
    return result


def collecting_runs(
    block: BlockAnatomy, selects: Callable[[Linear], bool], bytes_of: Callable[[Group], int]
) -> Iterator[list[list[Linear]]]:
    """The groups of selected layers that read the same inputs, those of one run together, in the order in
    which they are worked on. ``bytes_of`` says what the statistics of a group take.
    """
    before = block.mixer.inputs() if block.experts is not None else block.inputs()
    for group in before:
        if layers := list(filter(selects, group)):
            yield [layers]
    if block.experts is None:
        return
    most = sum(map(float_bytes, block.expert_linears()))
    for groups in ([mlp.projections for mlp in block.mlps()], [(mlp.down,) for mlp in block.mlps()]):
        waiting: list[list[Linear]] = []
        for layers in (found for group in groups if (found := list(filter(selects, group)))):
            if waiting and sum(map(bytes_of, [*waiting, layers])) > most:
                yield waiting
                waiting = []
            waiting.append(layers)
        if waiting:
            yield waiting
