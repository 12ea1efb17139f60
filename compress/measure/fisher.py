"""The loss whose gradients are Fisher information, and what adds something up from them as they pass.

For a decoder the loss is ``−log p(y)`` of a token ``y`` drawn from the model, so that half the mean square of
a change is nats of KL; for an encoder a random direction, so that the mean square is a squared relative
distance. The gradients come from :mod:`edgepress.compress.pipeline.backward_sweep`, a block at a time; the
other files of this room say what is added up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import BlockAnatomy
from ..model.separate_experts import rows_of
from ..model.skeleton import Head, Skeleton

LOGITS_AT_ONCE = 128  # tokens whose logits are held at once
TakeGradient = Callable[[Tensor], None]
# Says which batch comes: its real tokens ``[rows, tokens]``, and those of an encoder's states that it reads.
Expect = Callable[[Tensor, Tensor | None], None]


class Observer(Protocol):
    """Adds up something of one module; ``at_input``: the gradient is that at its input, not at its output."""

    at_input: bool

    @property
    def module(self) -> str:
        """The stored name of the module: a linear, or a block."""

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        """Look at rows ``inputs [tokens, in]`` and ``outputs [tokens, out]``, ``real [tokens]`` of which are
        no padding; returns what takes their gradient, of the same shape, on the way back.
        """

    def found(self, tokens: int, scale: float) -> Tensor:
        """What was added up over so many real ``tokens``; ``scale`` makes damage a token of a sum of
        squares.
        """


@runtime_checkable
class LooksFirst(Observer, Protocol):
    """An observer that sees what its module reads of other text, before gradients pass. ``tick`` receives
    parts, which add up to 1, of what it does at the end of that.
    """

    tick: Tick

    def look(self, inputs: Tensor) -> None:
        """Take in rows ``inputs [tokens, in]`` of real tokens."""

    def end_of_looking(self) -> None:
        """All of that text was shown."""


@runtime_checkable
class ByBatch(Observer, Protocol):
    """An observer that keeps batches apart: also one of which its module sees nothing."""

    def next_batch(self) -> None:
        """What comes now is of another batch."""


# From a block and its linears' weights ``[out, in]`` by name to its observers, by the name of what they find.
Measure = Callable[[BlockAnatomy, Callable[[str], Tensor]], Mapping[str, Observer]]


def direction(head: Head | None, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient at the last hidden states ``rows [tokens, hidden]``, behind the final norm, of what is
    drawn; an encoder has no ``head``.
    """
    if head is None:
        length = rows.to(torch.float32).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return torch.randn(rows.shape, generator=generator, device=rows.device).div(length).to(rows.dtype)
    states = rows if rows.dtype == torch.float64 else rows.to(torch.float32)
    parts = [_drawn(head, part, generator) for part in torch.split(states, LOGITS_AT_ONCE)]
    return torch.cat(parts).to(rows.dtype)


def _drawn(head: Head, states: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient of ``log p(y)``: at the logits one of what is drawn, less the probabilities."""
    logits = head.logits(states)
    probabilities = torch.log_softmax(logits, -1).exp()
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    ones = torch.ones_like(drawn, dtype=logits.dtype)
    return head.backward(logits, probabilities.neg().scatter_add(-1, drawn, ones))


@contextmanager
def observed(skeleton: Skeleton, observers: Mapping[str, Observer], block: BlockAnatomy) -> Iterator[Expect]:
    """Each of ``observers`` at its module of ``block``, for as long as the context lasts."""
    with _hooked(skeleton, block, [_Shown(one, block) for one in observers.values()]) as expect:
        yield expect


@contextmanager
def looking(
    skeleton: Skeleton, observers: Mapping[str, Observer], block: BlockAnatomy, tick: Tick = unseen
) -> Iterator[Expect | None]:
    """Those of ``observers`` that look first, at the inputs of their modules; None where none does. When the
    context ends, each has seen all, and ``tick`` received parts of what they do then, which add up to 1.
    """
    first = [one for one in observers.values() if isinstance(one, LooksFirst)]
    if not first:
        yield None
        return
    with _hooked(skeleton, block, [_Looked(one, block) for one in first]) as expect:
        yield expect
    for one in first:
        one.tick = lambda part: tick(part / len(first))
        one.end_of_looking()


class _Hook:
    """At the module of an observer: of each batch the calls that come first are seen, since a module may be
    called for other than tokens then.
    """

    def __init__(self, observer: Observer, block: BlockAnatomy) -> None:
        self.observer = observer
        cross = () if block.cross is None else (block.cross.k.name, block.cross.v.name)
        self.of_memory = observer.module in cross  # it reads the encoder's states
        self.real = torch.empty(0)
        self.waits = 0

    def expect(self, real: Tensor, calls: int) -> None:
        """A batch comes, with these real tokens, and so many calls of the module."""
        self.real, self.waits = real, calls

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if self.waits:
            self.waits -= 1
            real = rows_of(module, self.real)
            self.see(inputs[0], output[0] if isinstance(output, tuple) else output, real)

    def see(self, inputs: Tensor, output: Tensor, real: Tensor) -> None:
        """Take what went through the module, rows ``real`` of which are no padding."""
        raise TypeError(f"{type(self).__name__} does not define see")


class _Shown(_Hook):
    """With the gradient once it arrives."""

    def expect(self, real: Tensor, calls: int) -> None:
        super().expect(real, calls)
        if isinstance(self.observer, ByBatch):
            self.observer.next_batch()

    def see(self, inputs: Tensor, output: Tensor, real: Tensor) -> None:
        take = self.observer.observe(_rows(inputs.detach()), _rows(output.detach()), real)
        watched = inputs if self.observer.at_input else output
        watched.register_hook(lambda gradient: take(_rows(gradient)))  # type: ignore[no-untyped-call]


class _Looked(_Hook):
    """Real tokens alone."""

    def see(self, inputs: Tensor, output: Tensor, real: Tensor) -> None:
        assert isinstance(self.observer, LooksFirst)
        self.observer.look(_rows(inputs)[real])


@contextmanager
def _hooked(skeleton: Skeleton, block: BlockAnatomy, hooks: Sequence[_Hook]) -> Iterator[Expect]:
    handles = [skeleton.submodule(hook.observer.module).register_forward_hook(hook) for hook in hooks]

    def expect(real: Tensor, memory: Tensor | None) -> None:
        for hook in hooks:
            mine = memory if hook.of_memory else real
            assert mine is not None
            hook.expect(mine.flatten(), block.repeats)

    try:
        yield expect
    finally:
        for handle in handles:
            handle.remove()


def _rows(values: Tensor) -> Tensor:
    return values.flatten(0, -2)
