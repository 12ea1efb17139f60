"""How far a sweep has come within a block, counted in the multiply-adds that the plan counts too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...terminal.progress import ProgressTask, Tick
from ..model.block_anatomy import BlockAnatomy, Linear

if TYPE_CHECKING:
    from .block_pass import BlockPass

# A forward pass of a block in units of its matrix products, and logits in those of a head: few tokens at
# once, from a table that is made float32 for each few of them, and then compared.
FORWARD, LOGITS = 1.5, 3.0
# In multiply-adds, where all kinds of work are counted alike: a weight of a column recursion, and one that is
# rounded to a grid.
_ENTRY, _ROUNDING = 200, 60
# Of a block before its file is written: what is left is advanced when the journal has it.
_BEFORE_THE_END = 0.99


@dataclass(frozen=True)
class Work:
    """How much of each kind of work.

    Attributes:
        products: multiply-adds of float32 matrix products; factors: those of Cholesky factors and inverses.
        columns: of recursions that work one after another; entries: the weights in them.
        roundings: weights, times the grids that each is rounded to.
        stored: bytes of files that are read or written, hashed, and made float32 or of it.
    """

    products: float = 0.0
    factors: float = 0.0
    columns: float = 0.0
    entries: float = 0.0
    roundings: float = 0.0
    stored: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @property
    def multiplications(self) -> float:
        """All of it in multiply-adds, roughly: what progress counts."""
        return self.products + self.factors + _ENTRY * self.entries + _ROUNDING * self.roundings


def weights_of(linear: Linear) -> int:
    """How many weights ``linear`` has."""
    return linear.out_features * linear.in_features


def block_weights(block: BlockAnatomy) -> int:
    """How many weights of ``block`` a token is multiplied with: of experts, those of as many as it goes
    through, and all as often as the block is applied.
    """
    experts = sum(map(weights_of, block.expert_linears()))
    unused = 0 if block.experts is None else experts - int(block.experts.share * experts)
    return block.repeats * (sum(map(weights_of, block.linears())) - unused)


def block_work(
    block: BlockAnatomy, steps: Sequence[BlockPass], tokens: int, samples: int, batch_tokens: int
) -> Work:
    """What ``steps`` do on ``block``, with the forward passes that make the next block's inputs, with
    ``tokens`` of calibration text in so many ``samples``, ``batch_tokens`` at once.
    """
    read = max((step.seen(tokens, samples) for step in steps if step.calibrated), default=0)
    total = Work(FORWARD * read * (1 + any(step.compares for step in steps)) * block_weights(block))
    routed = {linear.name for linear in block.expert_linears()}
    share = 1.0 if block.experts is None else block.experts.share
    for step in steps:
        groups = [[linear for linear in group if step.selects(linear)] for group in block.inputs()]
        seen, wanted = step.seen(tokens, samples), [group for group in groups if group]
        for part, read in ((False, seen), (True, int(share * seen))):
            mine = [group for group in wanted if (group[0].name in routed) == part]
            total += step.work(mine, read, batch_tokens) if mine else Work()
    return total


@contextmanager
def forwards_tick(linears: Iterable[nn.Module], tick: Tick) -> Iterator[None]:
    """``tick`` receives each of ``linears`` as it runs, for as long as the context lasts: a batch through a
    large block takes long.
    """

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tick(FORWARD * inputs[0].numel() * output.shape[-1])

    handles = [linear.register_forward_hook(hook) for linear in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class BlockAdvance:
    """Advances ``task`` from one block to the next, whose work is ``planned``; called with the multiply-adds
    that are done. Work that the plan did not see does not move it.
    """

    def __init__(self, task: ProgressTask, planned: float, name: str) -> None:
        self.task, self.planned, self.name = task, max(planned, 1.0), name
        self.done = 0.0

    def __call__(self, amount: float) -> None:
        part = min(amount / self.planned, _BEFORE_THE_END - self.done)
        if part > 0:
            self.done += part
            self.task.advance(part, self.name)

    def end(self, detail: str) -> None:
        """The block is finished."""
        self.task.advance(1 - self.done, f"{self.name} {detail}")
