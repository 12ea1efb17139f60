"""Shows observers what goes through their modules of a block, and the gradients there once they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...terminal.progress import Tick, unseen
from ..model.block_anatomy import BlockAnatomy
from ..model.separate_experts import rows_of
from ..model.skeleton import Skeleton
from .fisher import ByBatch, LooksFirst, Observer

# Says which batch comes: its real tokens ``[rows, tokens]``, and those of an encoder's states that it reads.
Expect = Callable[[Tensor, Tensor | None], None]


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
